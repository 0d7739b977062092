#include "compress/torch/trainer.h"

#include <cmath>
#include <filesystem>

#include "compress/core/atomic_file.h"
#include "compress/core/error.h"
#include "compress/core/parallel.h"
#include "compress/core/system.h"
#include "compress/core/text.h"
#include "compress/torch/lane.h"
#include "compress/torch/precompiled.h"
#include "distill/candidates.h"
#include "distill/checkpoint.h"
#include "distill/learned_scales.h"
#include "distill/loss_mixture.h"
#include "distill/metrics.h"

namespace slmc::libtorch {

std::shared_ptr<const WeightSource> Trainer::tensors_of(const at::Tensor& weights) const {
  auto trained = std::make_shared<MemoryWeights>(job_.student->arch());
  for (const ParameterSlot& slot : job_.layout.slots)
    trained->add(slot.name, {.data = reinterpret_cast<const std::byte*>(weights.data_ptr<float>() +
                                                                        slot.offset),
                             .dtype = DType::kF32,
                             .shape = slot.shape,
                             .owner = nullptr});
  return trained;
}

Trainer::Trainer(const TrainingJob& job, Context& context, const at::Device& device,
                 const std::string& torch_version, RankGroup& group)
    : job_(job),
      context_(context),
      group_(group),
      optimizer_(job.adam, job.layout, job.lanes, group),
      order_(job.data.windows, job.seed),
      own_samples_(job, group),
      candidates_(job.product, job.patience),
      conditions_(job.conditions),
      metrics_path_(group.first() ? job.metrics_path : "") {
  weights_ = load_flat(*job.start, job.layout);
  if (job.teacher != nullptr) {
    teacher_layout_ = parameter_layout(job.teacher->arch());
    teacher_weights_ = load_flat(*job.teacher, teacher_layout_).to(device);
  }
  losses_ = parse_losses(job.loss.loss);
  run_ = job.stored.empty() ? weights_ : at::empty_like(weights_);
  device_run_ = device.is_cpu() ? run_ : at::empty_like(run_, device);
  const ForwardPlace place{
      .device = device,
      .bf16 = job.bf16,
      .operators = job.plain_operators ? Operators::kLibTorch : Operators::kKernels};
  const auto frozen = std::make_shared<Frozen>(job.student, place);
  std::shared_ptr<FrozenStates> frozen_states;
  if (!job.frozen_states_folder.empty()) {
    std::vector<int64_t> tokens;
    for (int64_t w = 0; w < job.data.windows; ++w) tokens.push_back(job.data.length(w));
    frozen_states = std::make_shared<FrozenStates>(tokens, job.student->arch().hidden,
                                                   job.frozen_states_folder);
  }
  for (int64_t i = 0; i < optimizer_.lanes().count(); ++i)
    lanes_.push_back(std::make_unique<Lane>(job_, place, device_run_, frozen, teacher_weights_,
                                            teacher_layout_, losses_, frozen_states));
  if (job.keep_sparsity && job.lora == nullptr) {
    mask_.resize(static_cast<size_t>(job.layout.total));
    const float* const w = weights_.data_ptr<float>();
    for (int64_t i = 0; i < job.layout.total; ++i)
      mask_[static_cast<size_t>(i)] = i >= job.layout.decayed || w[i] != 0.0f ? 1 : 0;
  }
  conditions_["lanes"] = job.lanes;
  conditions_["libtorch"] = torch_version;
  conditions_["device"] = device.is_cpu() ? "cpu" : "cuda";
  conditions_["processor"] = cpu_model();
}

/// After a change of the weights: what the network runs on.
void Trainer::renew() {
  if (!job_.stored.empty())
    round_layout(job_.layout, job_.stored, weights_.data_ptr<float>(), run_.data_ptr<float>());
  device_run_.copy_(run_);  // On the cpu it is the same tensor.
}

LossMix Trainer::mix_of(int64_t step) const {
  return mix_at(losses_, job_.loss, job_.real_vocab, step, job_.steps);
}

/// Whether distributions are compared with the teacher's.
bool Trainer::compares() const { return !mix_of(0).distill.empty(); }

/// The mean of each loss over distributions or hidden states, unweighted.
Json Trainer::terms_of(const LossSums& sums) const {
  Json terms = Json::object();
  const double tokens = static_cast<double>(std::max<int64_t>(1, sums.tokens));
  for (size_t i = 0; i < sums.terms.size(); ++i)
    if (!losses_[i].cross_entropy()) terms[losses_[i].text] = sums.terms[i] / tokens;
  return terms;
}

std::vector<int64_t> Trainer::windows_at(int64_t first, int64_t count) {
  std::vector<int64_t> windows;
  for (int64_t i = 0; i < count; ++i) windows.push_back(order_.at(first + i));
  return windows;
}

std::vector<int64_t> Trainer::draws_at(int64_t first, int64_t count) {
  std::vector<int64_t> draws;
  for (int64_t i = 0; i < count; ++i) draws.push_back(order_.draw(first + i));
  return draws;
}

/// Gradients of these draws of `data`; `first_pass` numbers their first pass. Only the passes of
/// this rank's lanes are made; what they sum up to, lane by lane.
std::vector<LossSums> Trainer::learn(const PackedData& data, const std::vector<int64_t>& draws,
                                     int64_t first_pass, LossMix mix) {
  std::vector<std::vector<int64_t>> batches;
  int64_t learned = 0, compared = 0;
  for (const int64_t draw : draws) {
    if (batches.empty() || static_cast<int64_t>(batches.back().size()) == job_.micro_windows)
      batches.emplace_back();
    batches.back().push_back(draw);
    const PackedData::Counts counts = data.count(draw);
    learned += counts.learned;
    compared += counts.compared;
  }
  mix.hidden_share =
      static_cast<double>(learned) / static_cast<double>(std::max<int64_t>(1, compared));
  std::vector<LossSums> sums(lanes_.size());
  // The window's loss is divided once, by the tokens of the whole step.
  const double scale = learned > 0 ? 1.0 / static_cast<double>(learned) : 0.0;
  parallel_for(static_cast<int64_t>(lanes_.size()), [&](int64_t index) {
    const auto lane = static_cast<size_t>(index);
    lanes_[lane]->clear_gradients();
    for (int64_t b = optimizer_.lanes().first + index; b < std::ssize(batches); b += job_.lanes) {
      const std::vector<int64_t>& batch = batches[static_cast<size_t>(b)];
      LossSums part = lanes_[lane]->learn(mix, data, batch, scale, first_pass + b);
      if (!std::isfinite(part.total) && sums[lane].spoilt_window < 0)
        sums[lane].spoilt_window = data.window(batch.front());
      sums[lane].add(part);
    }
  });
  return sums;
}

LossSums Trainer::step(int64_t number) {
  LossMix mix = mix_of(number);
  if (!own_samples_.wanted(number))
    return sum_of_lanes(learn(job_.data,
                              draws_at(number * job_.windows_per_step, job_.windows_per_step),
                              number * passes(), mix));
  // What the student said is no text to imitate: the teacher alone judges it.
  mix.weight = 1;
  mix.ce_weight = 0;
  const std::vector<int64_t> windows = own_samples_.prepare(number, order_, *tensors_of(run_));
  return sum_of_lanes(learn(own_samples_.data(), windows, number * passes(), mix));
}

void Trainer::update(int64_t number, const LossSums& sums) {
  std::vector<float*> gradients;
  for (const auto& lane : lanes_) gradients.push_back(lane->gradients());
  gradient_norm_ = optimizer_.sum(gradients);
  if (!std::isfinite(sums.total) || !std::isfinite(gradient_norm_)) {
    // The weights are still those of the last step, but a checkpoint of them would lead here again.
    throw_bad_input(cat(
        "step ", number + 1, ": the loss is ",
        sums.total / static_cast<double>(std::max<int64_t>(1, sums.tokens)),
        sums.spoilt_window >= 0 ? cat(" (first in the pass of sample ", sums.spoilt_window, ")")
                                : "",
        " and the gradient's norm ", gradient_norm_, "; lower --lr or raise --warmup",
        has_own_checkpoint_ ? cat("; the last good checkpoint is kept in ", job_.checkpoint_folder)
                            : ""));
  }
  if (sums.tokens == 0) return;
  if (job_.learned_scales) {
    optimizer_.share(gradients[0]);  // A matrix and its scales lie in shards of different ranks.
    scale_gradients(job_.layout, job_.stored, weights_.data_ptr<float>(), gradients[0]);
  }
  const double factor =
      job_.adam.clip > 0 && gradient_norm_ > job_.adam.clip ? job_.adam.clip / gradient_norm_ : 1.0;
  optimizer_.step(number + 1, job_.rate.at(number), factor, weights_.data_ptr<float>(),
                  gradients[0], mask_.empty() ? nullptr : mask_.data());
  renew();
}

/// Of the time so far.
double Trainer::sampling_share() const {
  return own_samples_.seconds() / std::max(now_seconds() - started_, 1e-9);
}

std::string Trainer::progress_text(const LossSums& sums) const {
  const double tokens = static_cast<double>(std::max<int64_t>(1, sums.tokens));
  std::string text = cat("loss ", fixed(sums.total / tokens, 4));
  const Json terms = terms_of(sums);
  for (const auto& [term, value] : terms.items())
    text += cat(", ", term, " ", fixed(value.get<double>(), 4));
  if (compares())
    text += cat(", top-1 ", fixed(100.0 * static_cast<double>(sums.agree) / tokens, 1), "%");
  if (job_.on_policy.share > 0)
    text += cat(", sampling ", fixed(100.0 * sampling_share(), 0), "% of the time");
  if (const std::string held_out = candidates_.last_text(); !held_out.empty())
    text += ", held-out " + held_out;
  return cat(text, ", ", human_bytes(peak_rss_bytes()));
}

void Trainer::log(int64_t number, const LossSums& sums) {
  if (metrics_path_.empty() || (number % 10 != 9 && number + 1 != job_.steps)) return;
  const double tokens = static_cast<double>(std::max<int64_t>(1, sums.tokens));
  const double seconds = now_seconds() - started_;
  Json line{{"step", number + 1},
            {"loss", sums.total / tokens},
            {"cross_entropy", sums.cross_entropy / tokens}};
  if (compares()) {
    line["distillation"] = sums.distill / tokens;
    line["top1_agreement"] = static_cast<double>(sums.agree) / tokens;
  }
  if (losses_.size() > 1) line["losses"] = terms_of(sums);
  if (job_.on_policy.share > 0) {
    line["own_samples"] = own_samples_.wanted(number);
    line["sampling_share"] = sampling_share();
  }
  line["rate"] = job_.rate.at(number);
  line["gradient_norm"] = gradient_norm_;
  line["seconds"] = seconds;
  line["tokens_per_second"] = static_cast<double>((number + 1 - started_step_) *
                                                  job_.windows_per_step * job_.data.context) /
                              std::max(seconds, 1e-9);
  line["peak_rss_bytes"] = peak_rss_bytes();
  append_metrics(metrics_path_, line);
}

/// The loss against windows of the cache that were held back: without its teacher the runtime could
/// only say the perplexity.
Json Trainer::measure_cached() {
  // By windows, so that the sum does not depend on lanes or ranks.
  std::vector<LossSums> each(static_cast<size_t>(job_.eval_data.windows));
  // Weights that do not change, so that figures on the way can be compared.
  LossMix mix = mix_of(0);
  for (auto& loss : mix.distill)
    loss.weight = std::max(losses_[loss.term].weight.first, losses_[loss.term].weight.last);
  parallel_for(static_cast<int64_t>(lanes_.size()), [&](int64_t index) {
    for (int64_t w = index; w < job_.eval_data.windows; w += static_cast<int64_t>(lanes_.size()))
      each[static_cast<size_t>(w)] =
          lanes_[static_cast<size_t>(index)]->measure(mix, job_.eval_data, {w});
  });
  LossSums sums;
  for (const LossSums& window : each) sums.add(window);
  const double tokens = static_cast<double>(std::max<int64_t>(1, sums.tokens));
  Json entry{{"tokens", sums.tokens},
             {"cross_entropy", sums.cross_entropy / tokens},
             {"perplexity", std::exp(sums.cross_entropy / tokens)}};
  if (compares()) {
    entry["distillation"] = sums.distill / tokens;
    entry["top1_agreement"] = static_cast<double>(sums.agree) / tokens;
  }
  return entry;
}

bool Trainer::due() const {
  const bool measures = candidates_.measures() || job_.eval_data.windows > 0;
  return measures && job_.eval_every > 0 && state_.step > 0 && state_.step % job_.eval_every == 0 &&
         state_.step < job_.steps && candidates_.last_step() < state_.step;
}

/// The product of the weights as they are, by rank 0: what came of it, for the others.
Json Trainer::measure_here() {
  const auto trained = tensors_of(weights_);
  const size_t before = candidates_.measured().size();
  try {
    if (job_.eval_data.windows > 0)
      candidates_.add(state_.step, *trained, [this] { return measure_cached(); });
    else
      candidates_.add(state_.step, *trained, {});
  } catch (const Error& error) {
    return {{"failed", {{"code", static_cast<int>(error.code())}, {"text", error.what()}}}};
  } catch (const std::filesystem::filesystem_error& error) {
    return {{"failed", {{"code", static_cast<int>(ExitCode::kResources)}, {"text", error.what()}}}};
  }
  const Json& all = candidates_.measured();
  return {{"entry", all.size() > before ? all.back() : Json()},
          {"exhausted", candidates_.exhausted()}};
}

void Trainer::measure() {
  Json result = nullptr;
  if (group_.first()) result = measure_here();
  result =
      Json::parse(group_.from_first(result.dump(-1, ' ', false, Json::error_handler_t::replace)));
  if (result.contains("failed")) {
    auto text = result["failed"]["text"].get<std::string>();
    try {
      checkpoint();  // What was learned is not lost with a product that cannot be written.
    } catch (const Error& error) {
      text += cat("; and no checkpoint can be written: ", error.what());
    }
    throw Error(static_cast<ExitCode>(result["failed"]["code"].get<int>()), text);
  }
  exhausted_ = result["exhausted"].get<bool>();
  const Json& entry = result["entry"];
  if (entry.is_null()) return;
  if (!group_.first()) candidates_.follow(entry);
  append_metrics(metrics_path_, {{"held_out", entry}});
  progress_of(context_).note(cat("step ", state_.step, ": held-out ", candidates_.last_text()));
}

void Trainer::after_step() {
  if (group_.size() == 1 ? interrupted() : stop_asked_) {
    checkpoint();
    progress_of(context_).end(cat("interrupted at step ", state_.step, "; go on with --resume"));
    throw Error(ExitCode::kInterrupted, "interrupted");
  }
  if (due()) measure();
  if (job_.checkpoint_every > 0 && state_.step % job_.checkpoint_every == 0 &&
      state_.step < job_.steps)
    checkpoint();
  context_.check_ram(cat("training step ", state_.step));
}

Json Trainer::final_figures(const LossSums& sums) const {
  const double tokens = static_cast<double>(std::max<int64_t>(1, sums.tokens));
  Json figures{{"final_loss", sums.total / tokens},
               {"final_cross_entropy", sums.cross_entropy / tokens},
               {"final_losses", terms_of(sums)}};
  if (compares()) figures["final_distillation"] = sums.distill / tokens;
  return figures;
}

Json Trainer::report(double seconds, double trained) const {
  Json report = Json::object();
  report["steps"] = state_.step;
  report["tokens"] = state_.step * job_.windows_per_step * job_.data.context;
  report["ranks"] = {{"size", group_.size()}, {"carrier", group_.carrier()}};
  report["training_seconds"] = seconds;
  report["tokens_per_second"] = trained / std::max(seconds, 1e-9);
  report["resumed_at_step"] = started_step_;
  report.update(state_.last);
  if (job_.on_policy.share > 0)
    report["on_policy"] = {{"sampled_tokens", own_samples_.tokens()},
                           {"sampling_seconds", own_samples_.seconds()},
                           {"sampling_share", own_samples_.seconds() / std::max(seconds, 1e-9)}};
  report["held_out"] = candidates_.measured();
  report["exported_step"] = candidates_.best_step();
  report["stopped_early"] = candidates_.exhausted();
  return report;
}

Report Trainer::run() {
  agree();
  resume();
  foretell();
  renew();
  trim_metrics(metrics_path_, state_.step);
  Progress& progress = progress_of(context_);
  const int64_t tokens_per_step = job_.windows_per_step * job_.data.context;
  started_ = now_seconds();
  started_step_ = state_.step;
  progress.begin("training", static_cast<uint64_t>(job_.steps * tokens_per_step), "tokens",
                 static_cast<uint64_t>(state_.step * tokens_per_step));
  if (due()) measure();  // Interrupted before it was done.
  while (state_.step < job_.steps && !exhausted_) {
    const LossSums sums = step(state_.step);
    update(state_.step, sums);
    log(state_.step, sums);
    state_.step += 1;
    state_.last = final_figures(sums);
    progress.update(static_cast<uint64_t>(state_.step * tokens_per_step), progress_text(sums));
    after_step();
  }
  const double seconds = now_seconds() - started_;
  const auto trained = static_cast<double>((state_.step - started_step_) * tokens_per_step);
  progress.end(cat(human_count(static_cast<uint64_t>(trained)), " tokens, ",
                   fixed(trained / std::max(seconds, 1e-9), 0), " tokens/s"));
  if (job_.eval_data.windows == 0) {  // Nothing runs any more: their memory is the export's.
    lanes_.clear();
    teacher_weights_ = at::Tensor();
  }
  if (!exhausted_) measure();
  if (group_.first()) {
    candidates_.finish();
    remove_checkpoint(job_.checkpoint_folder);
  }
  return report(seconds, trained);
}

}  // namespace slmc::libtorch
