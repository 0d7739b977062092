#include "compress/torch/lane.h"

#include <algorithm>

#include "compress/core/parallel.h"
#include "compress/core/random.h"
#include "compress/torch/kernels.h"
#include "compress/torch/precompiled.h"
#include "compress/torch/products.h"

namespace slmc::libtorch {
namespace {

/// Positions that one thread takes the losses of at a time.
constexpr int64_t kLossRows = 8;

}  // namespace

Lane::Lane(const TrainingJob& job, const at::Tensor& weights, std::shared_ptr<const Frozen> frozen,
           const at::Tensor& teacher_weights, const ParameterLayout& teacher_layout,
           const LossMixture& losses, std::shared_ptr<FrozenStates> frozen_states)
    : job_(job),
      gradients_(at::zeros({job.layout.total}, at::kFloat)),
      student_(job.student->arch(), job.layout, weights, gradients_, std::move(frozen),
               job.lora.get()),
      frozen_states_(std::move(frozen_states)),
      striped_(job.lanes == 1 && !job.bf16) {
  if (job.recompute) student_.recompute_blocks();
  student_.use().bf16 = job.bf16;
  student_.use().striped = striped_;
  if (job.lora != nullptr) {
    student_.use().scale = job.lora->scale();
    student_.use().keep_zeros = job.keep_sparsity;
  }
  if (job.teacher != nullptr)
    teacher_ = std::make_unique<Decoder>(job.teacher->arch(), teacher_layout, teacher_weights,
                                         at::Tensor());
  if (teacher_) teacher_->use().striped = striped_;
  if (!teacher_ && job.cache == nullptr) return;
  const Architecture compared = teacher_ ? teacher_->arch() : job.cache->teacher_shape();
  for (size_t term = 0; term < losses.size(); ++term)
    pairs_.push_back(hidden_pairs(losses, term, student_.arch(), compared));
}

void Lane::gather_teacher(const LossMix& mix, const std::vector<int64_t>& windows, int64_t first) {
  if (job_.cache == nullptr || mix.distill.empty()) return;
  const int64_t row = job_.cache->header().context * job_.cache->header().k;
  best_ids_.resize(static_cast<size_t>(row) * windows.size());
  best_log_p_.resize(best_ids_.size());
  for (size_t w = 0; w < windows.size(); ++w)
    job_.cache->read(first + windows[w], mix.temperature,
                     best_ids_.data() + static_cast<int64_t>(w) * row,
                     best_log_p_.data() + static_cast<int64_t>(w) * row);
}

void Lane::read_states(const std::vector<int64_t>& windows, Blocks& blocks) const {
  for (auto& [block, states] : blocks) {
    const int64_t rows = job_.cache->header().context, width = job_.cache->header().hidden_width;
    states = at::empty({std::ssize(windows) * rows, width}, at::kFloat);
    for (size_t w = 0; w < windows.size(); ++w)
      job_.cache->read_states(windows[w], block,
                              states.data_ptr<float>() + static_cast<int64_t>(w) * rows * width);
  }
}

void Lane::gather(const PackedData& data, const std::vector<int64_t>& windows) {
  batch_.windows = static_cast<int64_t>(windows.size());
  batch_.context = data.context;
  batch_.ids.clear();
  batch_.spans.clear();
  labels_.clear();
  learned_.clear();
  for (size_t w = 0; w < windows.size(); ++w) {
    const int64_t window = windows[w];
    batch_.ids.insert(batch_.ids.end(), data.inputs(window), data.inputs(window) + data.context);
    labels_.insert(labels_.end(), data.labels(window), data.labels(window) + data.context);
    learned_.insert(learned_.end(), data.label_mask(window),
                    data.label_mask(window) + data.context);
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
  const int64_t piece = striped_ ? kLossRows : rows;
  const auto pieces = static_cast<size_t>((rows + piece - 1) / piece);
  if (scratch_.size() < pieces) scratch_.resize(pieces);
  std::vector<LossSums> parts(pieces);
  parallel_ranges(rows, piece, [&](int64_t first, int64_t last) {
    const auto p = static_cast<size_t>(first / piece);
    TeacherRows theirs = teacher;
    if (theirs.logits != nullptr) theirs.logits += first * theirs.vocab;
    if (theirs.top.k > 0)
      theirs.top.ids += first * theirs.top.k, theirs.top.log_p += first * theirs.top.k;
    parts[p] = loss_rows(mix, last - first, vocab, logits.data_ptr<float>() + first * vocab, theirs,
                         labels_.data() + begin + first, learned_.data() + begin + first, scale,
                         want_gradient, scratch_[p]);
  });
  LossSums sums;
  for (const LossSums& part : parts) sums.add(part);
  return sums;
}

LossSums Lane::head_and_loss(const LossMix& mix, const at::Tensor& states,
                             const at::Tensor& teacher_states, const Batch& batch, double scale,
                             at::Tensor* gradient) {
  const bool heeds_teacher = teacher_ && !mix.distill.empty();
  const int64_t rows = batch.windows * batch.context;
  const int64_t vocab = student_.head().size(0);
  const int64_t chunk = std::min<int64_t>(job_.head_rows, rows);
  if (!logits_.defined() || logits_.size(0) < chunk)
    logits_ = at::empty({chunk, vocab}, at::kFloat);
  const int64_t teacher_vocab = teacher_ ? teacher_->head().size(0) : 0;
  if (heeds_teacher && (!teacher_logits_.defined() || teacher_logits_.size(0) < chunk))
    teacher_logits_ = at::empty({chunk, teacher_vocab}, at::kFloat);
  LossSums sums;
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows - begin);
    const at::Tensor part = states.narrow(0, begin, count);
    at::Tensor logits = logits_.narrow(0, 0, count);
    multiply(logits, part, student_.head().t());
    const at::Tensor slope = cap_logits(student_.arch(), logits);
    TeacherRows theirs{.logits = nullptr, .vocab = teacher_vocab, .top = {}};
    if (heeds_teacher) {
      at::Tensor teacher_logits = teacher_logits_.narrow(0, 0, count);
      multiply(teacher_logits, teacher_states.narrow(0, begin, count), teacher_->head().t());
      cap_logits(teacher_->arch(), teacher_logits);
      theirs.logits = teacher_logits.data_ptr<float>();
    } else if (!best_ids_.empty()) {
      const int64_t k = job_.cache->header().k;
      theirs.top = {
          .k = k, .ids = best_ids_.data() + begin * k, .log_p = best_log_p_.data() + begin * k};
    }
    sums.add(losses(mix, begin, logits, theirs, scale, gradient != nullptr));
    if (gradient == nullptr) continue;
    if (slope.defined()) logits.mul_(slope);
    at::Tensor states_gradient = gradient->narrow(0, begin, count);
    multiply(states_gradient, logits, student_.head());
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
    const double share = mix.weight * weight / static_cast<double>(pairs_[term].size());
    double sum = 0;
    for (const HiddenPair& pair : pairs_[term]) {
      at::Tensor state = ours.at(pair.student);
      if (!pair.projection.empty()) state = at::mm(state, student_.trained(pair.projection).t());
      const at::NoGradGuard no_grad;
      const at::Tensor a = state.contiguous(), b = theirs.at(pair.teacher).contiguous();
      at::Tensor gradient = at::zeros_like(a);
      const int64_t width = a.size(1);
      for (int64_t r = 0; r < a.size(0); ++r)
        if (learned_[static_cast<size_t>(r)] != 0)
          sum += loss->row({.width = width,
                            .teacher = b.data_ptr<float>() + r * width,
                            .student = a.data_ptr<float>() + r * width},
                           gradient.data_ptr<float>() + r * width);
      if (!state.requires_grad()) continue;  // What a frozen block gives.
      roots.push_back(state);
      gradients.push_back(gradient.mul_(share * scale));
    }
    sums.add_term(term, sum / static_cast<double>(pairs_[term].size()));
    sums.total += share * sum;
  }
}

at::Tensor Lane::below_trained(const PackedData& data, const std::vector<int64_t>& windows) {
  const int64_t hidden = student_.arch().hidden, rows = data.context;
  at::Tensor states = at::empty({std::ssize(windows) * rows, hidden}, at::kFloat);
  float* out = states.data_ptr<float>();
  std::vector<float> x;
  for (const int64_t window : windows) {
    if (frozen_states_ == nullptr || !frozen_states_->read(window, x)) {
      gather(data, {window});
      const at::Tensor given = student_.run_frozen(student_.embed(batch_), batch_).contiguous();
      x.assign(given.data_ptr<float>(), given.data_ptr<float>() + given.numel());
      if (frozen_states_ != nullptr) frozen_states_->write(window, x);
    }
    out = std::copy(x.begin(), x.end(), out);
  }
  return states;
}

LossSums Lane::learn(const LossMix& mix, const PackedData& data,
                     const std::vector<int64_t>& windows, double scale, int64_t pass) {
  // Losses over hidden states want to see the frozen blocks' too.
  const bool skips = student_.frozen_blocks() > 0 && mix.hidden.empty();
  at::Tensor below;
  if (skips) below = below_trained(data, windows);
  gather(data, windows);
  gather_teacher(mix, windows, 0);
  Blocks ours, theirs;
  for (const auto& each : mix.hidden)
    for (const HiddenPair& pair : pairs_[each.term]) {
      ours[pair.student];
      theirs[pair.teacher];
    }
  at::Tensor teacher_states;
  if (teacher_) {
    const at::NoGradGuard no_grad;
    teacher_states = teacher_->forward(teacher_->embed(batch_), batch_, &theirs);
  } else {
    read_states(windows, theirs);
  }
  if (job_.lora != nullptr) {
    student_.use().dropout = job_.lora->dropout;
    student_.use().seed =
        Random(job_.seed + static_cast<uint64_t>(pass) * 0xd1342543de82ef95ull).next();
  }
  const bool trains_embedding = student_.embedding_gradient().defined();
  at::Tensor embedded;
  if (!skips) embedded = student_.embed(batch_).set_requires_grad(trains_embedding);
  const at::Tensor states =
      skips ? student_.forward_from(below, batch_) : student_.forward(embedded, batch_, &ours);
  at::Tensor gradient;
  LossSums sums;
  {
    const at::NoGradGuard no_grad;
    gradient = at::empty_like(states);
    sums = head_and_loss(mix, states.detach(), teacher_states, batch_, scale, &gradient);
  }
  std::vector<at::Tensor> roots{states}, gradients{gradient};
  compare_hidden(mix, ours, theirs, scale, sums, roots, gradients);
  torch::autograd::backward(roots, gradients);
  if (!trains_embedding) return sums;
  add_rows(embedded.size(0), embedded.size(1), batch_.ids.data(),
           embedded.grad().contiguous().data_ptr<float>(),
           student_.embedding_gradient().data_ptr<float>());
  return sums;
}

LossSums Lane::measure(const LossMix& mix, const PackedData& data,
                       const std::vector<int64_t>& windows) {
  const at::NoGradGuard no_grad;
  student_.use().dropout = 0;
  gather(data, windows);
  gather_teacher(mix, windows, job_.first_eval_window);
  at::Tensor teacher_states;
  if (teacher_) teacher_states = teacher_->forward(teacher_->embed(batch_), batch_);
  return head_and_loss(mix, student_.forward(student_.embed(batch_), batch_), teacher_states,
                       batch_, 0.0, nullptr);
}

}  // namespace slmc::libtorch
