// Chat templates against transformers' rendering of the same (fixtures/chat/generate.py), what of a
// conversation is learned, and Modelfiles.
#include "formats/chat/chat.h"

#include <gtest/gtest.h>

#include <functional>
#include <tuple>

#include "compress/core/error.h"
#include "compress/core/json.h"
#include "formats/chat/jinja.h"
#include "formats/chat/turns.h"
#include "formats/modelfile.h"

namespace slmc {
namespace {

const Json& fixture() {
  static const Json json = read_json(SLMC_FIXTURES "/chat/cases.json");
  return json;
}

ChatTemplate load(const std::string& name) {
  return {fixture()["templates"][name].get<std::string>(), "<s>", "</s>"};
}

std::string render(const std::string& source, const Json& variables = Json::object()) {
  return jinja::Template(source).render(variables, {.now = 86400 * 10957 + 43200}).text;
}

TEST(Jinja, RendersAsTransformersDoes) {
  ASSERT_GE(fixture()["cases"].size(), 100u);
  for (const Json& item : fixture()["cases"]) {
    const jinja::Template parsed(
        fixture()["templates"][item["name"].get<std::string>()].get<std::string>());
    try {
      const std::string text = parsed.render(item["variables"]).text;
      EXPECT_EQ(Json(text), item["text"]) << item["name"] << item["variables"];
    } catch (const Error& error) {
      EXPECT_TRUE(item["text"].is_null()) << item["name"] << error.what();
    }
  }
}

TEST(Jinja, ErrorsNameTheLine) {
  const auto error_of = [](const std::string& source, ExitCode code) -> std::string {
    try {
      render(source);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << source;
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      return error.what();
    }
    ADD_FAILURE() << source;
    return "";
  };
  EXPECT_NE(error_of("a\n{{ x | nonesuch }}", ExitCode::kUnsupported)
                .find("line 2: the filter 'nonesuch'"),
            std::string::npos);
  EXPECT_NE(error_of("\n\n{% include 'x' %}", ExitCode::kUnsupported).find("line 3"),
            std::string::npos);
  EXPECT_NE(error_of("{% if x %}", ExitCode::kBadInput).find("endif"), std::string::npos);
  EXPECT_NE(error_of("{{ x.y.z }}", ExitCode::kBadInput).find("is undefined"), std::string::npos);
  EXPECT_NE(error_of("{{ raise_exception('no\nway') }}", ExitCode::kBadInput).find("no way"),
            std::string::npos);
  EXPECT_NE(error_of("{% set x = [] %}{{ x.append(1) }}", ExitCode::kBadInput).find("append"),
            std::string::npos);
  for (const char* bad : {"{{", "{{ 'a }}", "{% for %}", "{{ 1 + }}", "{{ (1 }}", "{# ",
                          "{% raw %}", "{% break %}", "{{ a b }}", "{% nonesuch %}", "{{ 1 / 0 }}",
                          "{{ 'a' + 1 }}", "{{ 9223372036854775807 + 1 }}", "\xff"})
    error_of(bad, ExitCode::kBadInput);
}

TEST(Jinja, HostileTemplatesEnd) {
  EXPECT_THROW(
      render("{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}"),
      Error);
  EXPECT_THROW(render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), Error);
  EXPECT_THROW(render("{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set ns.s = "
                      "ns.s + ns.s %}{% endfor %}"),
               Error);
  EXPECT_THROW(render("{% set ns = namespace() %}{% set ns.l = [] %}{% for i in range(500) %}{% "
                      "set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}"),
               Error);
  EXPECT_THROW(render("{{ " + std::string(100'000, '(')), Error);
  EXPECT_THROW(render("{{ " + std::string(100'000, '-') + "1 }}"), Error);
}

TEST(Jinja, DatesAreThoseGiven) {
  EXPECT_EQ(render("{{ strftime_now('%d %b %Y') }}"), "01 Jan 2000");
}

std::vector<std::string> learned(const RenderedChat& chat) {
  std::vector<std::string> out;
  for (const Segment& segment : chat.segments)
    if (segment.learned) out.push_back(segment.text);
  return out;
}

TEST(Chat, LearnsWhatTheAssistantSaidAndWhatEndsIt) {
  const std::vector<ChatMessage> talk = {
      {"user", "Hi"}, {"assistant", " Hello. "}, {"user", "Bye"}, {"assistant", "Hello."}};
  const std::vector<std::tuple<std::string, std::string, std::string>> expected = {
      {"chatml", " Hello. <|im_end|>", "Hello.<|im_end|>"},
      {"llama-3", "Hello.<|eot_id|>", "Hello.<|eot_id|>"},
      {"phi-3", " Hello. <|end|>", "Hello.<|end|>"},
      {"zephyr", " Hello. </s>", "Hello.</s>"},
      {"llama-2", "Hello. </s>", "Hello. </s>"},
      {"gemma", "Hello.<end_of_turn>", "Hello.<end_of_turn>"},
      {"marks", " Hello. <end>", "Hello.<end>"}};
  for (const auto& [name, first, second] : expected) {
    const ChatTemplate chat = load(name);
    const RenderedChat rendered = render_chat(talk, chat, false);
    EXPECT_EQ(rendered.text(), chat.render(talk, false)) << name;
    EXPECT_EQ(learned(rendered), (std::vector<std::string>{first, second})) << name;
  }
}

TEST(Chat, ThoughtsThatTheTemplateKeepsAreLearned) {
  const std::string thought = "<think>\nhmm\n</think>\n\nYes.";
  const RenderedChat chat =
      render_chat({{"user", "a"}, {"assistant", thought}, {"user", "b"}, {"assistant", thought}},
                  load("thinking"), false);
  EXPECT_EQ(learned(chat), (std::vector<std::string>{"Yes.<|im_end|>", thought + "<|im_end|>"}));
}

TEST(Chat, AnswersThatChangeOthersAreRefused) {
  const ChatTemplate echo(
      "{% for m in messages %}{{ m.role }}:{{ messages[-1].content }}{{ m.content }};{% endfor %}");
  EXPECT_THROW(render_chat({{"user", "a"}, {"assistant", "b"}}, echo, false), Error);
  const ChatTemplate drops(
      "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}");
  EXPECT_THROW(render_chat({{"user", "a"}, {"assistant", "b"}}, drops, false), Error);
}

TEST(Chat, StopsAreWhatEndsAnAnswer) {
  for (const auto& [name, stop] :
       std::vector<std::pair<std::string, std::string>>{{"chatml", "<|im_end|>"},
                                                        {"llama-2", "</s>"},
                                                        {"zephyr", "</s>"},
                                                        {"gemma", "<end_of_turn>"},
                                                        {"llama-3", "<|eot_id|>"}})
    EXPECT_EQ(load(name).stop(), stop) << name;
}

TEST(Chat, WhatIsWrongIsToldWhenTheTemplateIsUsed) {
  const ChatTemplate none, wrong("{{ x | nonesuch }}");
  for (const ChatTemplate& chat : {none, wrong}) {
    try {
      chat.render({{"user", "Hi"}}, true);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUnsupported);
    }
  }
}

TEST(Chat, SpecialTokensComeFromTheTokenizersFiles) {
  Assets assets;
  assets.chat_template = "{{ bos_token }}|{{ eos_token }}";
  assets.tokenizer_config_json = R"({"bos_token":{"content":"<b>"}})";
  assets.special_tokens_map_json = R"({"eos_token":"<e>","bos_token":"<x>"})";
  EXPECT_EQ(ChatTemplate::from_assets(assets).render({}, false), "<b>|<e>");
}

TEST(ChatTurns, GiveWhatTheTemplateGives) {
  const ChatTurns turns = derive_turns(load("chatml with default"));
  EXPECT_EQ(turns.user.begin, "<|im_start|>user\n");
  EXPECT_EQ(turns.user.end, "<|im_end|>\n");
  EXPECT_EQ(turns.assistant.begin, "<|im_start|>assistant\n");
  EXPECT_EQ(turns.assistant.end, "<|im_end|>\n");
  EXPECT_EQ(turns.generation, "<|im_start|>assistant\n");
  EXPECT_EQ(turns.default_system, "Be brief.");
  EXPECT_EQ(derive_turns(load("llama-3")).user.begin,
            "<|start_header_id|>user<|end_header_id|>\n\n");
  EXPECT_TRUE(derive_turns(load("always a system")).always_system);
  EXPECT_TRUE(derive_turns(load("llama-2")).system_in_user);
  EXPECT_FALSE(derive_turns(load("gemma")).has_system);
}

// Llama 3.2's way: a day of its own where there is no clock.
TEST(ChatTurns, ADateIsWhatTheTemplateSaysWithoutAClock) {
  const ChatTemplate dated(
      "{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}{% else %}"
      "{% set day = '26 Jul 2024' %}{% endif %}"
      "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
      "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
      "<|system|>Today: {{ day }}\n\n{{ system }}<|end|>"
      "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>");
  const ChatTurns turns = derive_turns(dated);
  EXPECT_TRUE(turns.dated);
  EXPECT_EQ(turns.system.begin, "<|system|>Today: 26 Jul 2024\n\n");
  const std::string text = modelfile_text({.gguf = "a.gguf", .chat_template = dated});
  EXPECT_NE(text.find("# The model's own template names the day"), std::string::npos) << text;
  EXPECT_FALSE(derive_turns(load("llama-3")).dated);
}

TEST(ChatTurns, OtherTemplatesAreRefused) {
  for (const char* source :
       {"{{ messages[0].content }}",
        "{% for m in messages %}{{ loop.index }} {{ m.role }}: {{ m.content }}\n{% endfor %}",
        "{{ strftime_now('%d') }}{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor "
        "%}"}) {
    try {
      derive_turns(ChatTemplate(source));
      ADD_FAILURE() << source;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUnsupported) << error.what();
    }
  }
}

TEST(Modelfile, SaysTemplateStopsAndContext) {
  const std::string text = modelfile_text(
      {.gguf = "helpdesk.gguf", .chat_template = load("chatml"), .context = 512, .temperature = 0});
  EXPECT_EQ(text,
            "FROM ./helpdesk.gguf\n"
            "TEMPLATE \"\"\"{{- range .Messages }}"
            "{{ if eq .Role \"system\" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n"
            "{{ else if eq .Role \"user\" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n"
            "{{ else if eq .Role \"assistant\" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n"
            "{{ end }}{{ end }}<|im_start|>assistant\n\"\"\"\n"
            "PARAMETER stop \"<|im_end|>\"\n"
            "PARAMETER num_ctx 512\n"
            "PARAMETER temperature 0\n");
}

TEST(Modelfile, WithoutChatTemplatePassesThePrompt) {
  EXPECT_EQ(modelfile_text({.gguf = "/models/a.gguf"}),
            "FROM /models/a.gguf\nTEMPLATE \"\"\"{{ .Prompt }}\"\"\"\n");
}

TEST(Modelfile, SystemTextInsideTheUsersTurnIsOneExchange) {
  EXPECT_EQ(modelfile_text({.gguf = "a.gguf", .chat_template = load("llama-2")}),
            "FROM ./a.gguf\n"
            "TEMPLATE \"\"\"[INST] {{ if .System }}<<SYS>>\n{{ .System }}\n<</SYS>>\n\n{{ end }}{{ "
            ".Prompt }} [/INST]\"\"\"\n"
            "PARAMETER stop \"</s>\"\n");
}

}  // namespace
}  // namespace slmc
