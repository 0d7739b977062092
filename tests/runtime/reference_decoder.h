// A decoder in plain double-precision loops, written from the architecture's definition alone, as
// an independent source of numbers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "formats/architecture.h"

namespace slmc::testing {

/// Tensors as doubles, row-major; all positions computed at once with a full attention matrix.
struct ReferenceDecoder {
  Architecture arch;
  std::map<std::string, std::vector<double>> tensors;
  bool int8_cache = false;  ///< Keys and values rounded to 8 bits, a scale for each token and head.

  using Rows = std::vector<std::vector<double>>;

  std::vector<double> linear(const std::vector<double>& x, const std::string& name) const {
    const std::vector<double>& weight = tensors.at(name + ".weight");
    const size_t rows = weight.size() / x.size();
    std::vector<double> y(rows, 0.0);
    const auto bias = tensors.find(name + ".bias");
    for (size_t r = 0; r < rows; ++r) {
      for (size_t k = 0; k < x.size(); ++k) y[r] += weight[r * x.size() + k] * x[k];
      if (bias != tensors.end()) y[r] += bias->second[r];
    }
    return y;
  }

  std::vector<double> norm(const std::vector<double>& x, const std::string& name) const {
    double squares = 0;
    for (const double value : x) squares += value * value;
    const double factor = 1 / std::sqrt(squares / static_cast<double>(x.size()) + arch.norm_eps);
    std::vector<double> y(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * factor * tensors.at(name + ".weight")[i];
    return y;
  }

  void rotate(std::vector<double>& x, int64_t position) const {
    const auto d = static_cast<size_t>(arch.head_dim),
               half = static_cast<size_t>(arch.rope.dims) / 2;
    for (size_t head = 0; head < x.size() / d; ++head) {
      for (size_t i = 0; i < half; ++i) {
        const double angle =
            static_cast<double>(position) *
            std::pow(arch.rope.theta, -static_cast<double>(i) / static_cast<double>(half));
        double& a = x[head * d + i];
        double& b = x[head * d + half + i];
        const double turned = a * std::cos(angle) - b * std::sin(angle);
        b = b * std::cos(angle) + a * std::sin(angle);
        a = turned;
      }
    }
  }

  /// With the layer's fixed scale, or each head by itself: largest magnitude / 127 is the scale.
  void round_to_int8(std::vector<double>& x, size_t scale) const {
    if (!arch.kv_scales.empty()) {
      const double fixed = arch.kv_scales[scale];
      for (double& value : x)
        value = std::clamp(std::nearbyint(value / fixed), -128.0, 127.0) * fixed;
      return;
    }
    const auto d = static_cast<size_t>(arch.head_dim);
    for (size_t head = 0; head < x.size(); head += d) {
      double largest = 0;
      for (size_t i = head; i < head + d; ++i) largest = std::max(largest, std::abs(x[i]));
      for (size_t i = head; i < head + d; ++i)
        x[i] = std::nearbyint(x[i] * 127 / largest) * largest / 127;
    }
  }

  Rows attention(const Rows& q, const Rows& k, const Rows& v) const {
    const auto d = static_cast<size_t>(arch.head_dim),
               group = static_cast<size_t>(arch.heads / arch.kv_heads);
    Rows out(q.size(), std::vector<double>(q[0].size(), 0.0));
    for (size_t t = 0; t < q.size(); ++t) {
      for (size_t head = 0; head < static_cast<size_t>(arch.heads); ++head) {
        const size_t kv = head / group;
        std::vector<double> weight(t + 1);
        double sum = 0;
        for (size_t j = 0; j <= t; ++j) {
          double score = 0;
          for (size_t i = 0; i < d; ++i) score += q[t][head * d + i] * k[j][kv * d + i];
          sum += weight[j] = std::exp(score / std::sqrt(static_cast<double>(d)));
        }
        for (size_t j = 0; j <= t; ++j) {
          for (size_t i = 0; i < d; ++i) out[t][head * d + i] += weight[j] / sum * v[j][kv * d + i];
        }
      }
    }
    return out;
  }

  /// Logits [tokens][vocab].
  Rows logits(const std::vector<int32_t>& ids) const {
    Rows x;
    const auto hidden = static_cast<size_t>(arch.hidden);
    for (const int32_t id : ids) {
      const auto row = tensors.at("token_embd.weight").begin() +
                       static_cast<std::ptrdiff_t>(static_cast<size_t>(id) * hidden);
      x.emplace_back(row, row + static_cast<std::ptrdiff_t>(hidden));
    }
    for (int64_t layer = 0; layer < arch.layers; ++layer) {
      const std::string prefix = "blk." + std::to_string(layer) + ".";
      Rows q, k, v;
      for (size_t t = 0; t < x.size(); ++t) {
        const std::vector<double> normed = norm(x[t], prefix + "attn_norm");
        q.push_back(linear(normed, prefix + "attn_q"));
        k.push_back(linear(normed, prefix + "attn_k"));
        v.push_back(linear(normed, prefix + "attn_v"));
        rotate(q[t], static_cast<int64_t>(t));
        rotate(k[t], static_cast<int64_t>(t));
        if (int8_cache) {
          round_to_int8(k[t], 2 * static_cast<size_t>(layer));
          round_to_int8(v[t], 2 * static_cast<size_t>(layer) + 1);
        }
      }
      const Rows mixed = attention(q, k, v);
      for (size_t t = 0; t < x.size(); ++t) {
        add(x[t], linear(mixed[t], prefix + "attn_output"));
        const std::vector<double> normed = norm(x[t], prefix + "ffn_norm");
        std::vector<double> gate = linear(normed, prefix + "ffn_gate");
        const std::vector<double> up = linear(normed, prefix + "ffn_up");
        for (size_t i = 0; i < gate.size(); ++i)
          gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
        add(x[t], linear(gate, prefix + "ffn_down"));
      }
    }
    Rows result;
    for (const std::vector<double>& row : x)
      result.push_back(linear(norm(row, "output_norm"), arch.tied ? "token_embd" : "output"));
    return result;
  }

 private:
  static void add(std::vector<double>& x, const std::vector<double>& y) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }
};

}  // namespace slmc::testing
