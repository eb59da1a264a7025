// The product of two matrices of float32, c = a @ b, in NumPy's own memory, in AssemblyScript; tools/product.py compiles it, and
// backprop13.support.twin calls it. Each number of c is a sum over l = 0, 1, ..., in that order, as NumPy without BLAS adds it up: so
// it is NumPy's to the last bit, nan and inf too. What makes it fast: eight columns of four rows are added up at a time, in registers.
const ROWS = 4, COLUMNS = 8

// a is (n, m), its entry (i, l) at a + i*down + l*along: any view will do. b is (m, k), its rows `wide` bytes apart, each without gaps;
// c is (n, k), all without. n is 4 at least, k 8: where they are no multiples, the last tile begins sooner, and does some work twice.
export function product(a: usize, down: usize, along: usize, b: usize, wide: usize, c: usize, n: i32, m: i32, k: i32): void {
  const row = <usize>k * 4
  for (let i = 0; i < n; i += ROWS) {
    const top = <usize>min(i, n - ROWS)
    for (let j = 0; j < k; j += COLUMNS) {
      const left = <usize>min(j, k - COLUMNS) * 4
      tile(a + top*down, down, along, b + left, wide, c + top*row + left, row, m)
    }
  }
}

// @ts-ignore: a decorator
@inline
function tile(a: usize, down: usize, along: usize, b: usize, wide: usize, c: usize, row: usize, m: i32): void {
  let p0 = f32x4.splat(0), p1 = p0, p2 = p0, p3 = p0       // four rows of c, the first four columns
  let q0 = p0, q1 = p0, q2 = p0, q3 = p0                   // and the other four
  for (let l = 0; l < m; l++) {
    const p = v128.load(b), q = v128.load(b, 16)
    const a0 = v128.load32_splat(a), a1 = v128.load32_splat(a + down)
    const a2 = v128.load32_splat(a + 2*down), a3 = v128.load32_splat(a + 3*down)
    p0 = f32x4.add(p0, f32x4.mul(a0, p)); q0 = f32x4.add(q0, f32x4.mul(a0, q))
    p1 = f32x4.add(p1, f32x4.mul(a1, p)); q1 = f32x4.add(q1, f32x4.mul(a1, q))
    p2 = f32x4.add(p2, f32x4.mul(a2, p)); q2 = f32x4.add(q2, f32x4.mul(a2, q))
    p3 = f32x4.add(p3, f32x4.mul(a3, p)); q3 = f32x4.add(q3, f32x4.mul(a3, q))
    a += along
    b += wide
  }
  v128.store(c, p0); v128.store(c, q0, 16)
  v128.store(c + row, p1); v128.store(c + row, q1, 16)
  v128.store(c + 2*row, p2); v128.store(c + 2*row, q2, 16)
  v128.store(c + 3*row, p3); v128.store(c + 3*row, q3, 16)
}
