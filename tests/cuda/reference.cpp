// SPDX-License-Identifier: Apache-2.0
#include "reference.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

namespace harness {

using fastunroll::Prox;

namespace {

std::size_t size(std::initializer_list<int> axes) {
  std::size_t product = 1;
  for (const int a : axes) product *= static_cast<std::size_t>(a);
  return product;
}

double logistic(double z) { return 1 / (1 + std::exp(-z)); }

std::size_t parameter_index(const Case& c, Axes axes, int k, int s, int i) {
  const bool sample = axes == Axes::sample || axes == Axes::full;
  const bool atom = axes == Axes::atom || axes == Axes::full;
  const int rows = sample ? c.batch : 1, cols = atom ? c.n : 1;
  return static_cast<std::size_t>((k * rows + (sample ? s : 0)) * cols + (atom ? i : 0));
}

std::size_t parameter_size(const Case& c, Axes axes) {
  return parameter_index(c, axes, c.layers - 1, c.batch - 1, c.n - 1) + 1;
}

}  // namespace

Data make_data(const Case& c, unsigned seed) {
  std::mt19937 engine(seed);
  const auto normal = [&](std::size_t count, double scale) {
    std::normal_distribution<float> draw(0.0f, static_cast<float>(scale));
    Array a(count);
    std::generate(a.begin(), a.end(), [&] { return static_cast<double>(draw(engine)); });
    return a;
  };
  const auto positive = [&](std::size_t count, double scale) {
    std::uniform_real_distribution<float> draw(static_cast<float>(0.5 * scale),
                                               static_cast<float>(1.5 * scale));
    Array a(count);
    std::generate(a.begin(), a.end(), [&] { return static_cast<double>(draw(engine)); });
    return a;
  };
  Data d;
  const int copies = c.per_layer ? c.layers : 1;
  const double unit = 1 / std::sqrt(static_cast<double>(c.m));
  if (c.gram) {
    d.gram = normal(size({copies, c.n, c.n}), 0.5 / std::sqrt(static_cast<double>(c.n)));
    d.linear = normal(size({copies, c.batch, c.n}), 1);
  } else {
    d.dictionary = normal(size({c.m, c.n}), unit);
    d.weight = c.tied ? d.dictionary : normal(size({copies, c.m, c.n}), unit);
    d.measurements = normal(size({c.batch, c.m}), 1);
  }
  if (c.initial) d.initial = normal(size({c.batch, c.n}), 1);
  if (c.previous) d.previous = normal(size({c.batch, c.n}), 1);
  const auto layers = static_cast<std::size_t>(c.layers);
  if (c.rule) {
    d.rule_weight = normal(layers, 0.5);
    d.rule_bias = normal(layers, 0.5);
  } else {
    d.step = positive(parameter_size(c, c.step), 0.3);
  }
  d.threshold = positive(parameter_size(c, c.threshold), c.level);
  if (c.momentum) d.momentum = normal(layers, 0.4);
  if (c.prox == Prox::firm || c.prox == Prox::scad) {
    d.shape = positive(layers, 1);
    for (double& a : d.shape) a += fastunroll::least_shape(c.prox);
  }
  if (c.bypass > 0) d.bypass.assign(layers, c.bypass);
  d.grad_codes = normal(size({c.batch, c.n}), 1);
  if (c.iterates) d.grad_iterates = normal(size({c.layers + 1, c.batch, c.n}), 1);
  return d;
}

Shrunk shrink(double u, double t, Prox prox, double shape, bool kept) {
  const double sign = std::copysign(1.0, u), size = std::fabs(u);
  if (prox == Prox::smooth) {
    const double above = logistic(u - t), below = logistic(-u - t);
    return {std::log1p(std::exp(u - t)) - std::log1p(std::exp(-u - t)), above + below,
            below - above, 0};
  }
  if ((prox == Prox::nonnegative ? u : size) <= t) return {0, 0, 0, 0};
  if (kept || prox == Prox::hard) return {u, 1, 0, 0};
  if (prox == Prox::soft || prox == Prox::nonnegative) return {u - sign * t, 1, -sign, 0};
  const double bend = prox == Prox::scad ? 2 : 1;
  if (size > shape * t) return {u, 1, 0, 0};
  if (size <= bend * t) return {u - sign * t, 1, -sign, 0};
  const double rate = 1 / (shape - bend), over = size - bend * t;
  return {sign * (size - t + over * rate), 1 + rate, sign * (-1 - bend * rate),
          -sign * over * rate * rate};
}

Result reference(const Case& c, const Data& d) {
  const int B = c.batch, m = c.gram ? 0 : c.m, n = c.n, K = c.layers;
  const auto row = [](int length) { return Array(static_cast<std::size_t>(length)); };
  const auto at = [](int a, int rows, int b) { return static_cast<std::size_t>(a * rows + b); };
  const auto layer_of = [&](int k) { return c.per_layer ? k : 0; };
  const auto G = [&](int k, int i, int j) { return d.gram[at(layer_of(k) * n + i, n, j)]; };
  const auto W = [&](int k, int j, int i) { return d.weight[at(layer_of(k) * m + j, n, i)]; };
  const auto A = [&](int j, int i) { return d.dictionary[at(j, n, i)]; };

  Result out;
  const auto like = [&](const Array& a) { return Array(a.size()); };
  out.codes = row(B * n);
  out.iterates = row((K + 1) * B * n);
  out.linear = like(d.linear);
  out.gram = like(d.gram);
  out.dictionary_t = like(d.dictionary);
  out.weight_t = c.tied ? Array() : like(d.weight);
  out.measurements = like(d.measurements);
  out.initial = like(d.initial);
  out.step = like(d.step);
  out.threshold = like(d.threshold);
  out.rule_weight = like(d.rule_weight);
  out.rule_bias = like(d.rule_bias);
  out.momentum = like(d.momentum);
  out.shape = like(d.shape);

  for (int s = 0; s < B; ++s) {
    // x[k + 1] is x_k, x[0] is x_{-1}.
    std::vector<Array> x(static_cast<std::size_t>(K + 2), row(n));
    std::vector<Array> y(static_cast<std::size_t>(K), row(n)), v = y;
    std::vector<Array> r(static_cast<std::size_t>(K), row(m));
    std::vector<std::vector<Shrunk>> shrunk(static_cast<std::size_t>(K));
    Array steps = row(K * n), norms = row(K);
    for (int i = 0; i < n; ++i) {
      const std::size_t e = at(s, n, i);
      x[1][static_cast<std::size_t>(i)] = c.initial ? d.initial[e] : 0;
      x[0][static_cast<std::size_t>(i)] =
          c.previous ? d.previous[e] : x[1][static_cast<std::size_t>(i)];
    }
    for (int k = 0; k < K; ++k) {
      const auto kk = static_cast<std::size_t>(k);
      const double beta = c.momentum ? d.momentum[kk] : 0;
      for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        y[kk][i] = x[kk + 1][i] + beta * (x[kk + 1][i] - x[kk][i]);
      }
      const Array& p = c.heavy_ball ? x[kk + 1] : y[kk];
      for (int j = 0; j < m; ++j) {
        double sum = -d.measurements[at(s, m, j)];
        for (int i = 0; i < n; ++i) sum += p[static_cast<std::size_t>(i)] * A(j, i);
        r[kk][static_cast<std::size_t>(j)] = sum;
      }
      double squares = 0;
      for (int i = 0; i < n; ++i) {
        double sum = c.gram ? -d.linear[at(layer_of(k) * B + s, n, i)] : 0;
        for (int j = 0; j < n && c.gram; ++j) sum += p[static_cast<std::size_t>(j)] * G(k, j, i);
        for (int j = 0; j < m; ++j) sum += r[kk][static_cast<std::size_t>(j)] * W(k, j, i);
        v[kk][static_cast<std::size_t>(i)] = sum;
        squares += sum * sum;
      }
      norms[kk] = std::sqrt(squares);
      Array u = row(n), above;
      for (int i = 0; i < n; ++i) {
        const auto ii = static_cast<std::size_t>(i);
        steps[at(k, n, i)] =
            c.rule ? d.rule_minimum + (d.rule_maximum - d.rule_minimum) *
                                          logistic(d.rule_weight[kk] * norms[kk] + d.rule_bias[kk])
                   : d.step[parameter_index(c, c.step, k, s, i)];
        u[ii] = (c.skip ? y[kk][ii] : 0) - steps[at(k, n, i)] * v[kk][ii];
        const double magnitude = c.prox == Prox::nonnegative ? u[ii] : std::fabs(u[ii]);
        if (magnitude > d.threshold[parameter_index(c, c.threshold, k, s, i)]) {
          above.push_back(magnitude);
        }
      }
      std::sort(above.begin(), above.end(), std::greater<double>());
      const std::size_t count = std::min(above.size(), static_cast<std::size_t>(c.bypass));
      for (int i = 0; i < n; ++i) {
        const auto ii = static_cast<std::size_t>(i);
        const double magnitude = c.prox == Prox::nonnegative ? u[ii] : std::fabs(u[ii]);
        shrunk[kk].push_back(shrink(u[ii], d.threshold[parameter_index(c, c.threshold, k, s, i)],
                                    c.prox, d.shape.empty() ? 0 : d.shape[kk],
                                    count > 0 && magnitude >= above[count - 1]));
        x[kk + 2][ii] = shrunk[kk][ii].value;
      }
    }
    for (int k = 0; k <= K; ++k) {
      for (int i = 0; i < n; ++i) {
        out.iterates[at(k * B + s, n, i)] =
            x[static_cast<std::size_t>(k + 1)][static_cast<std::size_t>(i)];
      }
    }
    // Back: g[k + 1] is the gradient of x_k.
    std::vector<Array> g(static_cast<std::size_t>(K + 2), row(n));
    for (int k = 0; k <= K; ++k) {
      for (int i = 0; i < n; ++i) {
        double& target = g[static_cast<std::size_t>(k + 1)][static_cast<std::size_t>(i)];
        if (k == K) target += d.grad_codes[at(s, n, i)];
        if (c.iterates) target += d.grad_iterates[at(k * B + s, n, i)];
      }
    }
    for (int k = K - 1; k >= 0; --k) {
      const auto kk = static_cast<std::size_t>(k);
      const double beta = c.momentum ? d.momentum[kk] : 0;
      Array gu = row(n), gv = row(n), gr = row(m), gp = row(n), gy = row(n);
      double step_sum = 0;
      for (int i = 0; i < n; ++i) {
        const auto ii = static_cast<std::size_t>(i);
        const double grad = g[kk + 2][ii];
        gu[ii] = grad * shrunk[kk][ii].u;
        gv[ii] = -steps[at(k, n, i)] * gu[ii];
        step_sum -= gu[ii] * v[kk][ii];
        if (!c.rule) out.step[parameter_index(c, c.step, k, s, i)] -= gu[ii] * v[kk][ii];
        out.threshold[parameter_index(c, c.threshold, k, s, i)] += grad * shrunk[kk][ii].threshold;
        if (!d.shape.empty()) out.shape[kk] += grad * shrunk[kk][ii].shape;
      }
      if (c.rule) {
        const double gate = logistic(d.rule_weight[kk] * norms[kk] + d.rule_bias[kk]);
        const double logit = step_sum * (d.rule_maximum - d.rule_minimum) * gate * (1 - gate);
        out.rule_weight[kk] += logit * norms[kk];
        out.rule_bias[kk] += logit;
        if (norms[kk] > 0) {
          for (std::size_t i = 0; i < gv.size(); ++i) {
            gv[i] += logit * d.rule_weight[kk] * v[kk][i] / norms[kk];
          }
        }
      }
      const Array& p = c.heavy_ball ? x[kk + 1] : y[kk];
      for (int i = 0; i < n; ++i) {
        const double gvi = gv[static_cast<std::size_t>(i)];
        if (c.gram) out.linear[at(layer_of(k) * B + s, n, i)] -= gvi;
        for (int j = 0; j < n && c.gram; ++j) {
          out.gram[at(layer_of(k) * n + j, n, i)] += p[static_cast<std::size_t>(j)] * gvi;
          gp[static_cast<std::size_t>(j)] += gvi * G(k, j, i);
        }
        for (int j = 0; j < m; ++j) {
          const auto jj = static_cast<std::size_t>(j);
          gr[jj] += gvi * W(k, j, i);
          Array& target = c.tied ? out.dictionary_t : out.weight_t;
          target[at((c.tied ? 0 : layer_of(k)) * n + i, m, j)] += r[kk][jj] * gvi;
        }
      }
      for (int j = 0; j < m; ++j) {
        const double grj = gr[static_cast<std::size_t>(j)];
        out.measurements[at(s, m, j)] -= grj;
        for (int i = 0; i < n; ++i) {
          gp[static_cast<std::size_t>(i)] += grj * A(j, i);
          out.dictionary_t[at(i, m, j)] += p[static_cast<std::size_t>(i)] * grj;
        }
      }
      for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
        gy[i] = (c.skip ? gu[i] : 0) + (c.heavy_ball ? 0 : gp[i]);
        if (c.momentum) out.momentum[kk] += gy[i] * (x[kk + 1][i] - x[kk][i]);
        const bool same = k == 0 && !c.previous;
        g[kk + 1][i] += (same ? 1 : 1 + beta) * gy[i] + (c.heavy_ball ? gp[i] : 0);
        if (!same) g[kk][i] -= beta * gy[i];
      }
    }
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
      const std::size_t e = static_cast<std::size_t>(s) * static_cast<std::size_t>(n) + i;
      out.codes[e] = x.back()[i];
      if (c.initial) out.initial[e] = g[1][i];
    }
  }
  return out;
}

}  // namespace harness
