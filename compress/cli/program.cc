#include "compress/cli/program.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <new>

#include "compress/cli/global_options.h"
#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/field_text.h"
#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/core/torch_module.h"
#include "compress/runtime/decoder.h"
#include "formats/hub_cache.h"

namespace slmc {
namespace fs = std::filesystem;

const std::vector<std::unique_ptr<Command> (*)()>& command_table();

namespace {

/// Swallows people's text when JSON goes to stdout.
class NullBuffer : public std::streambuf {
 protected:
  int overflow(int c) override { return traits_type::not_eof(c); }
  std::streamsize xsputn(const char*, std::streamsize count) override { return count; }
};

/// The verb's place: the first word that is neither an option nor an option's value.
size_t find_verb(const std::vector<std::string>& arguments, const std::vector<Option>& globals) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].empty() || arguments[i][0] != '-' || arguments[i] == "-") return i;
    const std::string name = arguments[i].substr(0, arguments[i].find('='));
    const auto known = std::find_if(globals.begin(), globals.end(), [&](const Option& option) {
      return flag_name(option.info) == name;
    });
    if (known == globals.end() && name.rfind("--", 0) == 0 && name != "--help")
      parse_options(globals, {name}, "VERB");  // Refuses it.
    if (known != globals.end() && name == arguments[i] && !known->is_flag() &&
        known->info.value_without.empty())
      ++i;
  }
  return arguments.size();
}

[[noreturn]] void refuse_verb(const ProgramInfo& program, const std::string& verb,
                              const CommandList& commands) {
  if (program.runtime_only) {
    for (const auto& command : all_commands(false)) {
      if (command->name() == verb) throw_usage(cat("'", verb, "' is not in slmc-run; slmc has it"));
    }
  }
  std::vector<std::string> names;
  for (const auto& command : commands) names.emplace_back(command->name());
  throw_usage(cat("unknown verb '", verb, "'", did_you_mean(verb, names), " (", program.name,
                  " --help lists the verbs)"));
}

void write_json(const std::string& target, const Json& result) {
  if (target.empty()) return;
  const std::string text = result.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  if (target == "-") {
    std::cout << text;
  } else {
    write_text(target, text);
  }
}

void flush_output() {
  std::cout.flush();
  if (!std::cout) throw_resources("writing to stdout failed: is the disk full?");
}

/// --dry-run of a verb that writes nothing worth planning: its options, checked.
Json describe_options(Command& command, std::ostream& out) {
  const Json options = fields_to_json(command);
  out << "Dry run: " << command.name() << " would run with\n";
  for (const auto& [key, value] : options.items())
    out << "  " << key << ": " << value.dump(-1, ' ', false, Json::error_handler_t::replace)
        << "\n";
  return {{"verb", command.name()}, {"options", options}};
}

/// Joins the other ranks, if there are any, for as long as the command runs; what ends it here ends
/// it there.
Json run_joined(Command& command, Context& context, std::ostream& out, ExitCode& exit_code) {
  if (context.ranks.alone() || !context.dry_run.empty())
    return command.run(context, out, exit_code);
  const RankPlace& place = context.ranks;
  const std::shared_ptr<RankGroup> group = torch_module(context).ranks(context);
  const auto failed = [&](const Error& error) {
    group->fail(error);
    return Error(error.code(), cat("rank ", place.rank, " of ", place.size, ": ", error.what()));
  };
  try {
    return command.run(context, out, exit_code);
  } catch (const Error& error) {
    throw failed(error);
  } catch (const std::bad_alloc&) {
    throw failed(Error(ExitCode::kResources, "out of memory"));
  } catch (const std::exception& error) {
    throw failed(Error(ExitCode::kBug, cat("bug in slmc: ", error.what())));
  }
}

/// The report must not land on the result, nor fail only once that is there.
void check_json(const std::string& path, const std::vector<Option>& options) {
  if (path.empty() || path == "-") return;
  check_output(path, true);
  std::error_code error;
  if (fs::is_directory(path, error))
    throw_usage(cat("--json ", path, ": is a folder; name a file"));
  for (const Option& option : options) {
    const auto* output = std::get_if<std::string*>(&option.target);
    if (option.info.name != "output" || output == nullptr || (*output)->empty()) continue;
    const auto place = [](const std::string& of) {
      return fs::absolute(without_trailing_slash(of)).lexically_normal();
    };
    if (place(**output) == place(path))
      throw_usage(cat("--json ", path, ": is what the result is written to"));
  }
}

int run_command(const ProgramInfo& program, Command& command,
                const std::vector<std::string>& arguments) {
  GlobalOptions global;
  std::vector<Option> options = collect_options(command, false);
  const std::vector<Option> globals = collect_options(global, true);
  options.insert(options.end(), globals.begin(), globals.end());
  const std::string verb(command.name());
  if (parse_options(options, arguments, verb).help) {
    std::cout << help_text(program.name, command, options);
    flush_output();
    return 0;
  }
  if (global.version) {
    std::cout << program.name << " " << slmc_version() << "\n";
    return 0;
  }
  check_json(global.json, options);

  Context context = global.context();
  if (!context.ranks.alone()) {
    if (!command.shares_work())
      throw_usage(cat(verb, ": is not shared among processes, and ", context.ranks.size,
                      " were started; start one, or unset WORLD_SIZE"));
    if (!context.ranks.first()) {
      if (!context.dry_run.empty()) return 0;  // Rank 0 says it.
      context.verbosity = -1;
    }
  }
  if (!command.uses_device()) refuse_device(context, verb);
  set_threads(context.threads);
  if (const char* isa = std::getenv("SLMC_ISA"); isa != nullptr && *isa != '\0') force_isa(isa);
  set_hub_cache(
      hub_cache_folder(std::getenv("HF_HUB_CACHE"), std::getenv("HF_HOME"), std::getenv("HOME")));
  const std::unique_ptr<Progress> progress = make_progress(context.verbosity);
  context.progress = progress.get();
  install_interrupt_handler();

  NullBuffer null_buffer;
  std::ostream null_stream(&null_buffer);
  const bool silent = global.json == "-" || !context.ranks.first();
  std::ostream& out = silent ? null_stream : std::cout;
  ExitCode exit_code = ExitCode::kOk;
  const bool only_describe = !context.dry_run.empty() && !command.handles_dry_run();
  const Json result =
      only_describe ? describe_options(command, out) : run_joined(command, context, out, exit_code);
  if (context.ranks.first()) write_json(global.json, result);
  flush_output();
  return static_cast<int>(exit_code);
}

int dispatch(const ProgramInfo& program, std::vector<std::string> arguments) {
  const CommandList commands = all_commands(program.runtime_only);
  GlobalOptions global;
  const std::vector<Option> globals = collect_options(global, true);
  const size_t at = find_verb(arguments, globals);
  if (at == arguments.size() || arguments[at] == "help") {
    if (at + 1 < arguments.size()) return dispatch(program, {arguments[at + 1], "--help"});
    if (at == arguments.size()) parse_options(globals, arguments, "VERB");
    std::cout << (global.version ? program.name + " " + slmc_version() + "\n"
                                 : overview_text(commands, program.name));
    flush_output();
    return 0;
  }
  const std::string verb = arguments[at];
  arguments.erase(arguments.begin() + static_cast<std::ptrdiff_t>(at));
  for (const auto& command : commands) {
    if (command->name() == verb) return run_command(program, *command, arguments);
  }
  refuse_verb(program, verb, commands);
}

int fail(const ProgramInfo& program, ExitCode code, std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::cout.flush();
  std::fprintf(stderr, "%s: %s\n", program.name.c_str(), message.c_str());
  return static_cast<int>(code);
}

}  // namespace

CommandList all_commands(bool runtime_only) {
  CommandList commands;
  for (const auto make : command_table()) {
    std::unique_ptr<Command> command = make();
    if (!runtime_only || command->runtime_only()) commands.push_back(std::move(command));
  }
  return commands;
}

int run_program(const ProgramInfo& program, int argc, char** argv) {
  try {
    return dispatch(program, std::vector<std::string>(argv + std::min(argc, 1), argv + argc));
  } catch (const Error& error) {
    return fail(program, error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(program, ExitCode::kResources,
                "out of memory; a smaller --context or fewer --threads need less");
  } catch (const fs::filesystem_error& error) {
    return fail(program, ExitCode::kBadInput,
                cat(error.path1().string(), ": ", error.code().message()));
  } catch (const std::exception& error) {
    if (interrupted()) return fail(program, ExitCode::kInterrupted, "interrupted");
    return fail(
        program, ExitCode::kBug,
        cat("bug in slmc: ", error.what(), "; please report it with the command that led here"));
  }
}

}  // namespace slmc
