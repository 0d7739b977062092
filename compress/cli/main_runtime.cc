// slmc-run: the verbs that need neither stages nor LibTorch, in one file to copy to a device.
#include "compress/cli/program.h"

int main(int argc, char** argv) {
  return slmc::run_program({.name = "slmc-run", .runtime_only = true}, argc, argv);
}
