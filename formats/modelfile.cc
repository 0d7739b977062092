#include "formats/modelfile.h"

#include "compress/core/text.h"
#include "formats/chat.h"

namespace slmc {
namespace {

std::string turn(std::string_view condition, std::string_view role, const ChatTurn& text) {
  return cat("{{ ", condition, " eq .Role \"", role, "\" }}", text.begin, "{{ .Content }}",
             text.end);
}

// Formats whose system text lies inside the user's turn use Ollama's older form of one exchange,
// which it repeats itself.
std::string one_exchange(const ChatFormat& format) {
  return cat(format.first_begin, "{{ if .System }}", format.system.begin, "{{ .System }}",
             format.system.end, "{{ end }}{{ .Prompt }}", format.user.end, format.generation);
}

std::string go_template(const ChatFormat& format) {
  if (format.system_in_user) return one_exchange(format);
  std::string out = "{{- range .Messages }}";
  if (format.has_system) out += turn("if", "system", format.system);
  out += turn(format.has_system ? "else if" : "if", "user", format.user);
  out += turn("else if", "assistant", format.assistant);
  return out + cat("{{ end }}{{ end }}", format.generation);
}

}  // namespace

std::string modelfile_text(const ModelfileOptions& options) {
  const bool bare = options.gguf.find('/') == std::string::npos;
  std::string out = cat("FROM ", bare ? "./" : "", options.gguf, "\n");
  std::vector<std::string> stops;
  if (options.chat_template.empty()) {
    out += "TEMPLATE \"\"\"{{ .Prompt }}\"\"\"\n";
  } else {
    const ChatFormat& format = chat_format_of(options.chat_template);
    out += cat("TEMPLATE \"\"\"", go_template(format), "\"\"\"\n");
    const std::string system = default_system_prompt(options.chat_template);
    if (!system.empty()) out += cat("SYSTEM \"\"\"", system, "\"\"\"\n");
    stops.emplace_back(format.stop);
  }
  stops.insert(stops.end(), options.stops.begin(), options.stops.end());
  for (const std::string& stop : stops) out += cat("PARAMETER stop \"", stop, "\"\n");
  if (options.context > 0) out += cat("PARAMETER num_ctx ", options.context, "\n");
  if (options.temperature >= 0) out += cat("PARAMETER temperature ", options.temperature, "\n");
  return out;
}

}  // namespace slmc
