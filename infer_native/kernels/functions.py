"""exp, erf, tanh, softmax and sums of float32 in a form that compilers turn into vectors."""

from __future__ import annotations

PARTS = 16  # accumulators of a reduction


def helpers() -> dict[str, str]:
    """Functions in C by name, each after those that it calls."""
    return {
        "nx_exp": _EXP, "nx_erf": _ERF, "nx_tanh": _TANH,
        "nx_total": _parts("double", "nx_total", "", "0", "{0} + {1}", "(double)x[i]"),
        "nx_squares": _parts(
            "double", "nx_squares", ", float m", "0", "{0} + {1}",
            "(double)((x[i] - m) * (x[i] - m))",
        ),
        "nx_exps": _EXPS, "nx_softmax": _SOFTMAX,
    }  # fmt: skip


def _parts(kind: str, name: str, more: str, start: str, join: str, element: str) -> str:
    """A reduction of x[0..n) in PARTS accumulators: C keeps the order of sums as written."""
    part = element.replace("[i]", "[i + l]")
    return (
        f"static inline {kind} {name}(const float *x, long n{more}) {{\n"
        f"  {kind} a[{PARTS}], all = {start};\n"
        f"  for (long l = 0; l < {PARTS}; l++) a[l] = {start};\n"
        f"  for (long i = 0; i < n - n % {PARTS}; i += {PARTS})\n"
        f"    for (long l = 0; l < {PARTS}; l++) a[l] = {join.format('a[l]', part)};\n"
        f"  for (long i = n - n % {PARTS}; i < n; i++) all = {join.format('all', element)};\n"
        f"  for (long l = 0; l < {PARTS}; l++) all = {join.format('all', 'a[l]')};\n"
        "  return all;\n}"
    )


# exp(x) = 2^n * exp(r): n is x / ln 2 rounded by adding 1.5 * 2^23, r by Cody and Waite's two
# parts of ln 2, exp(r) by its Taylor polynomial of degree 7, exact to an ulp on |r| <= ln 2 / 2.
# 2^n is two factors, so that neither leaves the range of float before the product does.
_EXP = """static inline float nx_exp(float x) {
  float c = x > 89.0f ? 89.0f : x;
  c = c < -104.0f ? -104.0f : c;
  union { float f; int32_t i; } t, a, b;
  t.f = c * 1.44269504f + 12582912.0f;
  const float n = t.f - 12582912.0f;
  const float r = (c - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.98412698e-4f;
  p = p * r + 1.38888889e-3f;
  p = p * r + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t e = t.i - 0x4b400000;
  const int32_t h = e >> 1;
  a.i = (int32_t)((uint32_t)(h + 127) << 23);
  b.i = (int32_t)((uint32_t)(e - h + 127) << 23);
  return p * a.f * b.f;
}"""

# Up to 1 the polynomial of erf(x) / x - 1 in x^2, beyond 1 - exp(-p(x)) with the polynomial of
# -log(erfc(x)) on [1, 4]; both fitted at Chebyshev's nodes. The error is below 1.3 ulp.
_ERF = """static inline float nx_erf(float x) {
  const float b = fabsf(x), a = b > 4.0f ? 4.0f : b, s = a * a;
  float p = 7.88249745e-05f;
  p = p * s - 0.000801885501f;
  p = p * s + 0.00518931216f;
  p = p * s - 0.0268543288f;
  p = p * s + 0.112835974f;
  p = p * s - 0.37612626f;
  p = p * s + 0.128379166f;
  float q = -1.6140616e-06f;
  q = q * a + 4.55906229e-05f;
  q = q * a - 0.000592769531f;
  q = q * a + 0.00474022236f;
  q = q * a - 0.0263647176f;
  q = q * a + 0.109978244f;
  q = q * a + 0.631937087f;
  q = q * a + 1.13016665f;
  q = q * a - 0.000303212961f;
  const float y = a < 1.0f ? a + a * p : 1.0f - nx_exp(-q);
  return copysignf(y, x);
}"""

# Up to 0.625 the polynomial of (tanh(x) / x - 1) / x^2, fitted as above; beyond by exp.
_TANH = """static inline float nx_tanh(float x) {
  const float b = fabsf(x), a = b > 10.0f ? 10.0f : b, s = a * a;
  float p = 0.00229584146f;
  p = p * s - 0.00834698044f;
  p = p * s + 0.0217699613f;
  p = p * s - 0.0539594069f;
  p = p * s + 0.133333042f;
  p = p * s - 0.333333343f;
  const float y = a < 0.625f ? a + a * s * p : 1.0f - 2.0f / (nx_exp(2.0f * a) + 1.0f);
  return copysignf(y, x);
}"""

# exp of each lane, where there are vectors.
_EXPS = """#ifdef VL
typedef int32_t nx_ints __attribute__((vector_size(4 * VL)));
static inline __attribute__((always_inline)) vf nx_exps(vf x) {
  const vf c = VMAX(VSET(-104.0f), VMIN(VSET(89.0f), x));
  const vf t = c * VSET(1.44269504f) + VSET(12582912.0f), n = t - VSET(12582912.0f);
  const vf r = (c - n * VSET(0.693359375f)) + n * VSET(2.12194440e-4f);
  vf p = r * VSET(1.98412698e-4f) + VSET(1.38888889e-3f);
  p = p * r + VSET(8.33333333e-3f);
  p = p * r + VSET(4.16666667e-2f);
  p = p * r + VSET(1.66666667e-1f);
  p = p * r + VSET(0.5f);
  p = p * r + VSET(1.0f);
  p = p * r + VSET(1.0f);
  const nx_ints e = (nx_ints)t - 0x4b400000, h = e >> 1;
  return p * (vf)((h + 127) << 23) * (vf)((e - h + 127) << 23);
}
#endif"""
# A row at a time. The lanes are joined in four chains: one would take longer than a short row. NaN
# that the maximum drops is in the sum.
_SOFTMAX = """#ifdef VL
static inline void nx_softmax(const float *x, float *y, long n) {
  const long full = n - n % VL;
  float l[VL], m[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, s[4] = {0};
  vf v = VSET(-INFINITY);
  for (long i = 0; i < full; i += VL) v = VMAX(LD(x + i), v);
  memcpy(l, &v, sizeof l);
  for (long i = 0; i < VL; i++) m[i % 4] = m[i % 4] > l[i] ? m[i % 4] : l[i];
  for (long i = full; i < n; i++) m[i % 4] = m[i % 4] > x[i] ? m[i % 4] : x[i];
  for (long i = 1; i < 4; i++) m[0] = m[0] > m[i] ? m[0] : m[i];
  v = VSET(0.0f);
  for (long i = 0; i < full; i += VL) {
    const vf e = nx_exps(LD(x + i) - VSET(m[0]));
    v += e;
    ST(y + i, e);
  }
  memcpy(l, &v, sizeof l);
  for (long i = 0; i < VL; i++) s[i % 4] += l[i];
  for (long i = full; i < n; i++) s[i % 4] += y[i] = nx_exp(x[i] - m[0]);
  const float scale = 1 / ((s[0] + s[1]) + (s[2] + s[3]));
  for (long i = 0; i < n; i++) y[i] *= scale;
}
#else
static inline void nx_softmax(const float *x, float *y, long n) {
  float m = -INFINITY, sum = 0;
  for (long i = 0; i < n; i++) m = m > x[i] ? m : x[i];
  for (long i = 0; i < n; i++) sum += y[i] = nx_exp(x[i] - m);
  const float scale = 1 / sum;
  for (long i = 0; i < n; i++) y[i] *= scale;
}
#endif"""
