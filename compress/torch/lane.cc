#include "compress/torch/lane.h"

#include <algorithm>

#include "compress/core/parallel.h"
#include "compress/core/random.h"
#include "compress/torch/precompiled.h"
#include "compress/torch/products.h"

namespace slmc::libtorch {
namespace {

/// Positions that one thread takes the losses of at a time.
constexpr int64_t kLossRows = 8;

}  // namespace

Lane::Lane(const TrainingJob& job, const ForwardPlace& place, const at::Tensor& weights,
           std::shared_ptr<const Frozen> frozen, const at::Tensor& teacher_weights,
           const ParameterLayout& teacher_layout, const LossMixture& losses,
           std::shared_ptr<FrozenStates> frozen_states)
    : job_(job),
      device_(place.device),
      gradients_(at::zeros({job.layout.total}, at::dtype(at::kFloat).device(device_))),
      student_(job.student->arch(), job.layout, weights, gradients_, place, std::move(frozen),
               job.lora.get()),
      frozen_states_(std::move(frozen_states)),
      alone_(job.lanes == 1 || !device_.is_cpu()),
      striped_(alone_ && device_.is_cpu() && !job.bf16) {
  if (job.recompute) student_.recompute_blocks();
  student_.use().striped = striped_;
  if (job.lora != nullptr) {
    student_.use().scale = job.lora->scale();
    student_.use().keep_zeros = job.keep_sparsity;
  }
  if (job.teacher != nullptr)
    teacher_ = std::make_unique<Decoder>(
        job.teacher->arch(), teacher_layout, teacher_weights, at::Tensor(),
        ForwardPlace{.device = place.device, .operators = place.operators});
  if (teacher_) teacher_->use().striped = striped_;
  if (!teacher_ && job.cache == nullptr) return;
  const Architecture compared = teacher_ ? teacher_->arch() : job.cache->teacher_shape();
  for (size_t term = 0; term < losses.size(); ++term)
    pairs_.push_back(hidden_pairs(losses, term, student_.arch(), compared));
}

float* Lane::gradients() {
  if (device_.is_cpu()) return gradients_.data_ptr<float>();
  if (!host_gradients_.defined()) host_gradients_ = at::empty_like(gradients_, at::kCPU);
  return host_gradients_.copy_(gradients_).data_ptr<float>();
}

void Lane::gather_teacher(const LossMix& mix, const PackedData& data,
                          const std::vector<int64_t>& draws, int64_t first) {
  if (job_.cache == nullptr || mix.distill.empty()) return;
  const int64_t row = job_.cache->header().context * job_.cache->header().k;
  best_ids_.resize(static_cast<size_t>(row) * draws.size());
  best_log_p_.resize(best_ids_.size());
  for (size_t w = 0; w < draws.size(); ++w)
    job_.cache->read(first + data.window(draws[w]), mix.temperature,
                     best_ids_.data() + static_cast<int64_t>(w) * row,
                     best_log_p_.data() + static_cast<int64_t>(w) * row);
}

void Lane::read_states(const PackedData& data, const std::vector<int64_t>& draws,
                       Blocks& blocks) const {
  for (auto& [block, states] : blocks) {
    const int64_t rows = job_.cache->header().context, width = job_.cache->header().hidden_width;
    states = at::empty({std::ssize(draws) * rows, width}, at::kFloat);
    for (size_t w = 0; w < draws.size(); ++w)
      job_.cache->read_states(data.window(draws[w]), block,
                              states.data_ptr<float>() + static_cast<int64_t>(w) * rows * width);
  }
}

void Lane::gather(const PackedData& data, const std::vector<int64_t>& draws) {
  reading_.clear();
  batch_.spans.clear();
  batch_.windows = data.begins.empty() ? std::ssize(draws) : 1;
  for (size_t w = 0; w < draws.size(); ++w) {
    const int64_t window = data.window(draws[w]), before = std::ssize(reading_.ids);
    data.read(draws[w], reading_);
    if (!data.begins.empty())
      batch_.spans.push_back({.window = 0, .begin = before, .length = data.length(window)});
    if (data.document.empty()) continue;
    const int32_t* const document = data.document.data() + window * data.context;
    for (int64_t begin = 0; begin < data.context;) {
      int64_t end = begin + 1;
      while (end < data.context && document[end] == document[begin]) ++end;
      batch_.spans.push_back(
          {.window = static_cast<int64_t>(w), .begin = begin, .length = end - begin});
      begin = end;
    }
  }
  batch_.ids = reading_.ids;
  batch_.types = reading_.types;
  batch_.context = std::ssize(reading_.ids) / batch_.windows;
  choose_rows();
}

void Lane::choose_rows() {
  if (!student_.arch().encoder) {
    labels_ = reading_.labels;
    learned_ = reading_.learned;
    return;
  }
  labels_.clear();
  std::vector<int64_t> rows;
  for (size_t i = 0; i < reading_.learned.size(); ++i) {
    if (reading_.learned[i] == 0) continue;
    rows.push_back(static_cast<int64_t>(i));
    labels_.push_back(reading_.labels[i]);
  }
  learned_.assign(rows.size(), 1);
  rows_ = at::tensor(rows, at::kLong);
}

void Lane::multiply(at::Tensor out, const at::Tensor& a, const at::Tensor& b, bool add) const {
  if (striped_)
    multiply_striped(std::move(out), a, b, add);
  else if (add)
    out.addmm_(a, b);
  else
    at::mm_out(out, a, b);
}

LossSums Lane::losses(const LossMix& mix, int64_t begin, at::Tensor& logits,
                      const TeacherRows& teacher, double scale, bool want_gradient) {
  const int64_t rows = logits.size(0), vocab = logits.size(1);
  const int64_t piece = alone_ ? kLossRows : rows;
  const auto pieces = static_cast<size_t>((rows + piece - 1) / piece);
  if (scratch_.size() < pieces) scratch_.resize(pieces);
  const at::Tensor here = logits.to(at::kCPU);
  auto* const values = here.data_ptr<float>();
  std::vector<LossSums> parts(pieces);
  parallel_ranges(rows, piece, [&](int64_t first, int64_t last) {
    const auto p = static_cast<size_t>(first / piece);
    TeacherRows theirs = teacher;
    if (theirs.logits != nullptr) theirs.logits += first * theirs.vocab;
    if (theirs.top.k > 0)
      theirs.top.ids += first * theirs.top.k, theirs.top.log_p += first * theirs.top.k;
    parts[p] = loss_rows(mix, last - first, vocab, values + first * vocab, theirs,
                         labels_.data() + begin + first, learned_.data() + begin + first, scale,
                         want_gradient, scratch_[p]);
  });
  if (want_gradient) logits.copy_(here);  // On the cpu it is the same tensor.
  LossSums sums;
  for (const LossSums& part : parts) sums.add(part);
  return sums;
}

LossSums Lane::head_and_loss(const LossMix& mix, const at::Tensor& features,
                             const at::Tensor& teacher_features, double scale,
                             at::Tensor* gradient) {
  const bool heeds_teacher = teacher_ && !mix.distill.empty();
  const int64_t rows = features.size(0);
  const int64_t vocab = student_.head().size(0);
  const int64_t chunk = std::min<int64_t>(job_.head_rows, rows);
  if (!logits_.defined() || logits_.size(0) < chunk)
    logits_ = at::empty({chunk, vocab}, features.options());
  const int64_t teacher_vocab = teacher_ ? teacher_->head().size(0) : 0;
  if (heeds_teacher && (!teacher_logits_.defined() || teacher_logits_.size(0) < chunk))
    teacher_logits_ = at::empty({chunk, teacher_vocab}, features.options());
  LossSums sums;
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows - begin);
    const at::Tensor part = features.narrow(0, begin, count);
    at::Tensor logits = logits_.narrow(0, 0, count);
    multiply(logits, part, student_.head().t());
    if (student_.head_bias().defined()) logits.add_(student_.head_bias());
    const at::Tensor slope = cap_logits(student_.arch(), logits);
    TeacherRows theirs{.logits = nullptr, .vocab = teacher_vocab, .top = {}};
    at::Tensor teachers_here;
    if (heeds_teacher) {
      at::Tensor teacher_logits = teacher_logits_.narrow(0, 0, count);
      multiply(teacher_logits, teacher_features.narrow(0, begin, count), teacher_->head().t());
      if (teacher_->head_bias().defined()) teacher_logits.add_(teacher_->head_bias());
      cap_logits(teacher_->arch(), teacher_logits);
      teachers_here = teacher_logits.to(at::kCPU);
      theirs.logits = teachers_here.data_ptr<float>();
    } else if (!best_ids_.empty()) {
      const int64_t k = job_.cache->header().k;
      theirs.top = {
          .k = k, .ids = best_ids_.data() + begin * k, .log_p = best_log_p_.data() + begin * k};
    }
    sums.add(losses(mix, begin, logits, theirs, scale, gradient != nullptr));
    if (gradient == nullptr) continue;
    if (slope.defined()) logits.mul_(slope);
    at::Tensor features_gradient = gradient->narrow(0, begin, count);
    multiply(features_gradient, logits, student_.head());
    if (at::Tensor bias = student_.head_bias_gradient(); bias.defined()) bias.add_(logits.sum(0));
    if (!student_.head_gradient().defined()) continue;
    at::Tensor head_gradient = student_.head_gradient();
    multiply(head_gradient, logits.t(), part, true);
  }
  return sums;
}

void Lane::compare_hidden(const LossMix& mix, const Blocks& ours, const Blocks& theirs,
                          double scale, LossSums& sums, std::vector<at::Tensor>& roots,
                          std::vector<at::Tensor>& gradients) const {
  for (const auto& [loss, weight, term] : mix.hidden) {
    const auto pairs = static_cast<double>(pairs_[term].size());
    const double share = mix.weight * weight * mix.hidden_share / pairs;
    double sum = 0;
    for (const HiddenPair& pair : pairs_[term]) {
      at::Tensor state = ours.at(pair.student);
      if (!pair.projection.empty()) state = at::mm(state, student_.trained(pair.projection).t());
      const at::NoGradGuard no_grad;
      const at::Tensor a = state.to(at::kCPU).contiguous(),
                       b = theirs.at(pair.teacher).to(at::kCPU).contiguous();
      at::Tensor gradient = at::zeros_like(a);
      const int64_t width = a.size(1);
      for (int64_t r = 0; r < a.size(0); ++r)
        if (reading_.compared[static_cast<size_t>(r)] != 0)
          sum += loss->row({.width = width,
                            .teacher = b.data_ptr<float>() + r * width,
                            .student = a.data_ptr<float>() + r * width},
                           gradient.data_ptr<float>() + r * width);
      if (!state.requires_grad()) continue;  // What a frozen block gives.
      roots.push_back(state);
      gradients.push_back(gradient.mul_(share * scale).to(device_));
    }
    sums.add_term(term, mix.hidden_share * sum / pairs);
    sums.total += share * sum;
  }
}

at::Tensor Lane::below_trained(const PackedData& data, const std::vector<int64_t>& draws) {
  const int64_t hidden = student_.arch().hidden;
  int64_t rows = 0;
  for (const int64_t draw : draws) rows += data.length(data.window(draw));
  at::Tensor states = at::empty({rows, hidden}, at::kFloat);
  float* out = states.data_ptr<float>();
  std::vector<float> x;
  for (const int64_t draw : draws) {
    const int64_t window = data.window(draw);
    if (frozen_states_ == nullptr || !frozen_states_->read(window, x)) {
      gather(data, {draw});
      const at::Tensor given =
          student_.run_frozen(student_.embed(batch_), batch_).to(at::kCPU).contiguous();
      x.assign(given.data_ptr<float>(), given.data_ptr<float>() + given.numel());
      if (frozen_states_ != nullptr) frozen_states_->write(window, x);
    }
    out = std::copy(x.begin(), x.end(), out);
  }
  return states.to(device_);
}

LossSums Lane::learn(const LossMix& mix, const PackedData& data, const std::vector<int64_t>& draws,
                     double scale, int64_t pass) {
  // Losses over hidden states want to see the frozen blocks' too.
  const bool skips = student_.frozen_blocks() > 0 && mix.hidden.empty();
  at::Tensor below;
  if (skips) below = below_trained(data, draws);
  gather(data, draws);
  if (labels_.empty() && mix.hidden.empty()) return {};  // No token of these was masked.
  gather_teacher(mix, data, draws, 0);
  Blocks ours, theirs;
  for (const auto& each : mix.hidden)
    for (const HiddenPair& pair : pairs_[each.term]) {
      ours[pair.student];
      theirs[pair.teacher];
    }
  at::Tensor teacher_features;
  if (teacher_) {
    const at::NoGradGuard no_grad;
    teacher_features =
        teacher_->features(teacher_->forward(teacher_->embed(batch_), batch_, &theirs), rows_);
  } else {
    read_states(data, draws, theirs);
  }
  student_.use().dropout =
      job_.lora != nullptr ? job_.lora->dropout : side_shape(*job_.student).bottleneck.dropout;
  student_.use().seed =
      Random(job_.seed + static_cast<uint64_t>(pass) * 0xd1342543de82ef95ull).next();
  const bool trains_embedding = student_.embedding_gradient().defined();
  at::Tensor embedded;
  if (!skips) embedded = student_.embed(batch_).set_requires_grad(trains_embedding);
  const at::Tensor features = student_.features(
      skips ? student_.forward_from(below, batch_) : student_.forward(embedded, batch_, &ours),
      rows_);
  at::Tensor gradient;
  LossSums sums;
  {
    const at::NoGradGuard no_grad;
    gradient = at::empty_like(features);
    sums = head_and_loss(mix, features.detach(), teacher_features, scale, &gradient);
  }
  std::vector<at::Tensor> roots{features}, gradients{gradient};
  compare_hidden(mix, ours, theirs, scale, sums, roots, gradients);
  torch::autograd::backward(roots, gradients);
  if (!trains_embedding) return sums;
  student_.add_embedding_gradient(batch_, embedded.grad());
  return sums;
}

LossSums Lane::measure(const LossMix& mix, const PackedData& data,
                       const std::vector<int64_t>& draws) {
  const at::NoGradGuard no_grad;
  student_.use().dropout = 0;
  gather(data, draws);
  gather_teacher(mix, data, draws, job_.first_eval_window);
  const auto features = [&](Decoder& network) {
    return network.features(network.forward(network.embed(batch_), batch_), rows_);
  };
  return head_and_loss(mix, features(student_), teacher_ ? features(*teacher_) : at::Tensor(), 0.0,
                       nullptr);
}

}  // namespace slmc::libtorch
