#include "formats/modelfile.h"

#include "compress/core/text.h"
#include "formats/chat/turns.h"

namespace slmc {
namespace {

std::string turn(std::string_view condition, std::string_view role, const ChatTurns::Turn& text) {
  return cat("{{ ", condition, " eq .Role \"", role, "\" }}", text.begin, "{{ .Content }}",
             text.end);
}

// Templates whose system text lies inside the user's turn use Ollama's older form of one exchange,
// which it repeats itself.
std::string one_exchange(const ChatTurns& turns) {
  return cat(turns.user.begin, "{{ if .System }}", turns.system.begin, "{{ .System }}",
             turns.system.end, "{{ end }}{{ .Prompt }}", turns.user.end, turns.generation);
}

std::string go_template(const ChatTurns& turns) {
  if (turns.system_in_user) return one_exchange(turns);
  std::string out;
  const bool in_range = turns.has_system && !turns.always_system;
  if (turns.always_system) out += cat(turns.system.begin, "{{ .System }}", turns.system.end);
  out += out.empty() ? "{{- range .Messages }}" : "{{ range .Messages }}";
  if (in_range) out += turn("if", "system", turns.system);
  out += turn(in_range ? "else if" : "if", "user", turns.user);
  out += turn("else if", "assistant", turns.assistant);
  return out + cat("{{ end }}{{ end }}", turns.generation);
}

}  // namespace

std::string modelfile_text(const ModelfileOptions& options) {
  const bool bare = options.gguf.find('/') == std::string::npos;
  std::string out = cat("FROM ", bare ? "./" : "", options.gguf, "\n");
  std::vector<std::string> stops;
  if (!options.chat_template) {
    out += "TEMPLATE \"\"\"{{ .Prompt }}\"\"\"\n";
  } else {
    const ChatTurns turns = derive_turns(options.chat_template);
    if (turns.dated)
      out +=
          "# The model's own template names the day; Ollama's cannot, so this one says what the "
          "model's says without a clock.\n";
    out += cat("TEMPLATE \"\"\"", go_template(turns), "\"\"\"\n");
    if (!turns.default_system.empty())
      out += cat("SYSTEM \"\"\"", turns.default_system, "\"\"\"\n");
    if (!options.chat_template.stop().empty()) stops.push_back(options.chat_template.stop());
  }
  stops.insert(stops.end(), options.stops.begin(), options.stops.end());
  for (const std::string& stop : stops) out += cat("PARAMETER stop \"", stop, "\"\n");
  if (options.context > 0) out += cat("PARAMETER num_ctx ", options.context, "\n");
  if (options.temperature >= 0) out += cat("PARAMETER temperature ", options.temperature, "\n");
  return out;
}

}  // namespace slmc
