#include "compress/cli/program.h"

int main(int argc, char** argv) { return slmc::run_program({.name = "slmc"}, argc, argv); }
