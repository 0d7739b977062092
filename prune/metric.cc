#include "prune/metric.h"

#include <list>

#include "compress/core/error.h"
#include "compress/core/text.h"

namespace slmc {

const std::vector<const Metric& (*)()>&
metric_table();  // Made by the build from prune/metrics/*.cc.

namespace {

std::list<Metric>& added_metrics() {
  static std::list<Metric> added;  // A list: addresses stay.
  return added;
}

const Metric* find(const std::string& name) {
  for (const Metric* metric : metrics()) {
    if (metric->name == name) return metric;
  }
  return nullptr;
}

}  // namespace

std::vector<const Metric*> metrics() {
  std::vector<const Metric*> all;
  for (auto* entry : metric_table()) all.push_back(&entry());
  for (const Metric& metric : added_metrics()) all.push_back(&metric);
  return all;
}

std::vector<std::string> metric_names() {
  std::vector<std::string> names;
  for (const Metric* metric : metrics()) names.push_back(metric->name);
  return names;
}

const Metric& metric_by_name(const std::string& name) {
  if (const Metric* metric = find(name)) return *metric;
  throw_usage(cat("metric '", name, "' is not known; expected one of ", join(metric_names(), ", "),
                  did_you_mean(name, metric_names())));
}

void add_metric(Metric metric) {
  if (metric.name.empty() || !metric.score)
    throw_usage("a prune metric needs a name and a score function");
  if (find(metric.name) != nullptr)
    throw_usage(cat("a prune metric named '", metric.name, "' exists already"));
  added_metrics().push_back(std::move(metric));
}

}  // namespace slmc
