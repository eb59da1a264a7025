/* The plain loop in C, products by a BLAS: backprop13.support.benchmarks compiles it, and says where the BLAS is. */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef void gemm(int order, int ta, int tb, INT m, INT n, INT k, float alpha, const float *a, INT lda,
                  const float *b, INT ldb, float beta, float *c, INT ldc);

/* c = alpha*a*b + beta*c, for c (m, n); ta, tb: a, b are stored transposed */
static void mm(gemm *blas, int ta, int tb, INT m, INT n, INT k, float alpha, const float *a, const float *b,
               float beta, float *c) {
    blas(101, ta ? 112 : 111, tb ? 112 : 111, m, n, k, alpha, a, ta ? m : k, b, tb ? k : n, beta, c, n);
}

static void softmax_minus_target(float *out, INT c, int64_t y) {
    float top = out[0], sum = 0;
    for (INT j = 1; j < c; j++) top = fmaxf(top, out[j]);
    for (INT j = 0; j < c; j++) sum += out[j] = expf(out[j] - top);
    for (INT j = 0; j < c; j++) out[j] /= sum;
    out[y] -= 1;
}

/* x (n, m), y (n,); w1 (m, h), b1, w2 (h, c), b2 are trained; l2, g1 (bs, h) and g (bs, c) are room */
void epoch(gemm *blas, const float *x, const int64_t *y, int64_t n, int64_t bs, int64_t m, int64_t h, int64_t c,
           float lr, float *w1, float *b1, float *w2, float *b2, float *l2, float *g1, float *g) {
    for (int64_t at = 0; at < n; at += bs) {
        int64_t k = n - at < bs ? n - at : bs;
        const float *xb = x + at*m, alpha = -lr/k;
        for (int64_t i = 0; i < k; i++) memcpy(l2 + i*h, b1, h*sizeof(float));
        mm(blas, 0, 0, k, h, m, 1, xb, w1, 1, l2);
        for (int64_t i = 0; i < k*h; i++) l2[i] = l2[i] > 0 ? l2[i] : 0;
        for (int64_t i = 0; i < k; i++) memcpy(g + i*c, b2, c*sizeof(float));
        mm(blas, 0, 0, k, c, h, 1, l2, w2, 1, g);
        for (int64_t i = 0; i < k; i++) softmax_minus_target(g + i*c, c, y[at + i]);
        mm(blas, 0, 1, k, h, c, 1, g, w2, 0, g1);
        for (int64_t i = 0; i < k*h; i++) g1[i] = l2[i] > 0 ? g1[i] : 0;
        mm(blas, 1, 0, h, c, k, alpha, l2, g, 1, w2);
        mm(blas, 1, 0, m, h, k, alpha, xb, g1, 1, w1);
        for (int64_t i = 0; i < k; i++) for (int64_t j = 0; j < c; j++) b2[j] += alpha*g[i*c + j];
        for (int64_t i = 0; i < k; i++) for (int64_t j = 0; j < h; j++) b1[j] += alpha*g1[i*h + j];
    }
}

/* The five products of each batch and nothing else, an image in a row, or in a column where `columns` has that product's bit;
   `only` has the bits of those that are computed */
void products(gemm *blas, int columns, int only, const float *x, int64_t n, int64_t bs, int64_t m, int64_t h,
              int64_t c, float *w1, float *w2, float *l2, float *g1, float *g) {
    for (int64_t at = 0; at < n; at += bs) {
        int64_t k = n - at < bs ? n - at : bs;
        const float *xb = x + at*m;
        if (only & 1) columns & 1 ? mm(blas, 0, 1, h, k, m, 1, w1, xb, 0, l2) : mm(blas, 0, 0, k, h, m, 1, xb, w1, 0, l2);
        if (only & 2) columns & 2 ? mm(blas, 0, 0, c, k, h, 1, w2, l2, 0, g) : mm(blas, 0, 0, k, c, h, 1, l2, w2, 0, g);
        if (only & 4) columns & 4 ? mm(blas, 1, 0, h, k, c, 1, w2, g, 0, g1) : mm(blas, 0, 1, k, h, c, 1, g, w2, 0, g1);
        if (only & 8) columns & 8 ? mm(blas, 0, 1, c, h, k, 1, g, l2, 0, w2) : mm(blas, 1, 0, h, c, k, 1, l2, g, 0, w2);
        if (only & 16) columns & 16 ? mm(blas, 0, 0, h, m, k, 1, g1, xb, 0, w1) : mm(blas, 1, 0, m, h, k, 1, xb, g1, 0, w1);
    }
}

/* Ten independent chains of fused multiply-adds in registers, times times: the processor's peak. Returns the float operations. */
#if defined __AVX512F__
enum { lanes = 16 };
#elif defined __AVX__
enum { lanes = 8 };
#else
enum { lanes = 4 };
#endif
typedef float vector __attribute__((vector_size(4*lanes)));

int64_t multiply_adds(int64_t times, float *end) {
    vector q[10] = {0}, a = {0}, b = {0};
    a += .999f; b += .001f;
    for (int64_t t = 0; t < times; t++) {
        #pragma GCC unroll 10
        for (int i = 0; i < 10; i++) q[i] = q[i]*a + b;
    }
    for (int i = 0; i < 10; i++) for (int j = 0; j < lanes; j++) *end += q[i][j];
    return times*10*lanes*2;
}
