#include "compress/cli/help.h"

#include <algorithm>

#include "compress/cli/global_options.h"
#include "compress/core/field_text.h"
#include "compress/core/text.h"

namespace slmc {
namespace {

struct Group {
  const char* title;
  std::vector<std::string> verbs;
};

/// Only the order of the overview; a verb that is not listed here appears under "Other".
const std::vector<Group>& groups() {
  static const std::vector<Group> all = {
      {"Look at a model", {"inspect", "verify", "compare"}},
      {"Make it smaller",
       {"distill", "prune", "quantize", "convert", "finetune", "capture", "imatrix", "rotate"}},
      {"Measure it", {"eval", "bench", "logits"}},
      {"Use it", {"generate", "chat", "tokenize"}},
      {"Recipes and the rest", {"run", "train-tokenizer", "completions"}},
  };
  return all;
}

const Command* find(const CommandList& commands, const std::string& verb) {
  for (const auto& command : commands) {
    if (command->name() == verb) return command.get();
  }
  return nullptr;
}

/// Visible verbs with their group's title, in the overview's order.
std::vector<std::pair<std::string, std::vector<Command*>>> grouped(const CommandList& commands) {
  std::vector<std::pair<std::string, std::vector<Command*>>> result;
  std::vector<const Command*> placed;
  for (const Group& group : groups()) {
    std::vector<Command*> members;
    for (const std::string& verb : group.verbs) {
      if (const Command* command = find(commands, verb))
        members.push_back(const_cast<Command*>(command));
    }
    placed.insert(placed.end(), members.begin(), members.end());
    if (!members.empty()) result.emplace_back(group.title, members);
  }
  std::vector<Command*> others;
  for (const auto& command : commands) {
    if (!command->hidden() &&
        std::find(placed.begin(), placed.end(), command.get()) == placed.end()) {
      others.push_back(command.get());
    }
  }
  if (!others.empty()) result.emplace_back("Other", others);
  return result;
}

std::string padded(const std::string& text, size_t width) {
  return text.size() < width ? text + std::string(width - text.size(), ' ') : text;
}

/// `text` broken at spaces so that lines end before column 100, continued at column `indent`.
std::string wrapped(const std::string& text, size_t indent) {
  std::string out;
  size_t column = indent;
  size_t at = 0;
  while (at < text.size()) {
    size_t end = text.find(' ', at);
    if (end == std::string::npos) end = text.size();
    if (column > indent && column + 1 + (end - at) > 100) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    }
    if (column > indent) out += ' ', ++column;
    out += text.substr(at, end - at);
    column += end - at;
    at = end + 1;
  }
  return out;
}

std::string names_column(const Option& option) {
  if (option.info.positional) return option.shown_name() + (option.is_list() ? "..." : "");
  std::string names = option.info.short_flag.empty() ? "    " : "-" + option.info.short_flag + ", ";
  names += option.shown_name();
  if (!option.info.value_without.empty()) return names + "[=" + option.shown_value() + "]";
  if (!option.is_flag()) names += " " + option.shown_value() + (option.is_list() ? "..." : "");
  return names;
}

/// What is said behind the help sentence: choices, range, default.
std::string remarks(const Option& option) {
  std::vector<std::string> parts;
  if (!option.info.choices.empty() && option.info.value_without.empty())
    parts.push_back(join(option.info.choices, ", "));
  if (const std::string range = range_text(option.info); !range.empty()) parts.push_back(range);
  if (option.info.required && !option.info.positional) parts.push_back("required");
  if (option.on_by_default) parts.push_back("on by default");
  if (!option.default_text.empty()) parts.push_back("default " + option.default_text);
  return parts.empty() ? "" : " [" + join(parts, "; ") + "]";
}

std::string option_lines(const std::vector<Option>& options, bool positional, bool global) {
  constexpr size_t kColumn = 30;
  std::string out;
  for (const Option& option : options) {
    if (option.info.positional != positional || option.global != global) continue;
    const std::string names = "  " + names_column(option);
    out += padded(names, kColumn);
    if (names.size() >= kColumn) out += "\n" + std::string(kColumn, ' ');
    out += wrapped(option.info.help + remarks(option), kColumn) + "\n";
  }
  return out;
}

std::string section(const std::string& title, const std::string& body) {
  return body.empty() ? "" : "\n" + title + ":\n" + body;
}

std::string escaped(std::string text) {
  for (size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2)
    text.replace(at, 1, "\\|");
  return text;
}

std::string markdown_rows(const std::vector<Option>& options) {
  if (options.empty()) return "";
  std::string out = "\n| option | value | meaning |\n|---|---|---|\n";
  for (const Option& option : options) {
    std::string name = "`" + option.shown_name() + "`";
    if (!option.info.short_flag.empty()) name = "`-" + option.info.short_flag + "` " + name;
    std::string value =
        option.info.positional ? "" : option.shown_value() + (option.is_list() ? "..." : "");
    if (!option.info.value_without.empty()) value = "[=" + value + "]";
    out += cat("| ", escaped(name), " | ", escaped(value), " | ",
               escaped(option.info.help + remarks(option)), " |\n");
  }
  return out;
}

}  // namespace

std::string overview_text(const CommandList& commands, const std::string& program) {
  std::string out =
      "slmc makes language models small: distil, prune, quantize, and measure what it cost.\n\n";
  if (program == "slmc-run")
    out = "slmc-run runs and measures models; slmc has the verbs that change them.\n\n";
  out += cat("Usage: ", program, " VERB [options]      (", program, " VERB --help explains one)\n");
  for (const auto& [title, members] : grouped(commands)) {
    std::string body;
    for (const Command* command : members) {
      body += padded("  " + std::string(command->name()), 19) +
              wrapped(std::string(command->summary()), 19) + "\n";
    }
    out += section(title, body);
  }
  out += "\nExample:\n";
  if (find(commands, "quantize") != nullptr) {
    out += cat("  ", program, " quantize my-model/ -o my-model.gguf --scheme q4_0\n");
    out += cat("  ", program, " eval my-model.gguf --against my-model/ --text sample.txt\n");
  } else {
    out += cat("  ", program, " generate my-model.gguf -p 'Once upon a time' -n 40\n");
  }
  return out;
}

std::string usage_line(const std::string& program, const std::string& verb,
                       const std::vector<Option>& options) {
  std::string line = cat(program, " ", verb);
  bool more = false;
  for (const Option& option : options) {
    const std::string dots = option.is_list() ? "..." : "";
    if (option.info.positional) {
      const std::string name = option.shown_name() + dots;
      line += option.info.required ? " " + name : " [" + name + "]";
    } else if (option.info.required) {
      const std::string flag =
          option.info.short_flag.empty() ? option.shown_name() : "-" + option.info.short_flag;
      line += cat(" ", flag, " ", option.shown_value(), dots);
    } else {
      more = true;
    }
  }
  return more ? line + " [options]" : line;
}

std::string help_text(const std::string& program, const Command& command,
                      const std::vector<Option>& options) {
  std::string out = cat("Usage: ", usage_line(program, std::string(command.name()), options),
                        "\n\n", command.summary(), "\n");
  out += section("Arguments", option_lines(options, true, false));
  out += section("Options", option_lines(options, false, false));
  out += section("Everywhere", option_lines(options, false, true));
  return out;
}

std::string markdown_docs(const CommandList& commands) {
  std::string out =
      "# Command line\n\nGenerated from the options by `slmc docs > docs/cli.md`; do not edit.\n\n"
      "Exit codes: 0 done; 1 a quality gate failed; 2 wrong usage; 3 a bad input file; 4 valid but "
      "unsupported; "
      "5 out of disk or memory, or over `--max-ram`; 70 a bug in slmc; 130 interrupted. An error "
      "is one line on stderr.\n\n"
      "Verbs marked with a star are in `slmc-run` too. A stage that writes OUT leaves its report "
      "beside it: "
      "`OUT.report.json` for a file, `OUT/slmc_report.json` for a folder.\n\n"
      "Environment: `SLMC_TORCH` (as `--torch`), `SLMC_THREADS` (as `--threads`), `SLMC_ISA` "
      "(forces an instruction set, "
      "for tests), `SLMC_NCCL` (another libnccl.so for ranks on GPUs).\n\n";
  for (const auto& [title, members] : grouped(commands)) {
    for (const Command* command : members) {
      out += cat("- [`", command->name(), "`](#", command->name(), ")",
                 command->runtime_only() ? "*" : "", ": ", command->summary(), "\n");
    }
  }
  GlobalOptions global;
  out += "\n## Everywhere\n" + markdown_rows(collect_options(global, true));
  for (const auto& [title, members] : grouped(commands)) {
    for (Command* command : members) {
      const std::vector<Option> options = collect_options(*command, false);
      out += cat("\n## ", command->name(), "\n\n", command->summary(), "\n\n`",
                 usage_line("slmc", std::string(command->name()), options), "`\n",
                 markdown_rows(options));
    }
  }
  return out;
}

}  // namespace slmc
