/** A tape of matrix operations with their gradients: what it takes to train a small transformer, and no more. */

/** `[rows, columns]` with its gradient. */
export class Matrix {
  readonly data: Float32Array;
  readonly grad: Float32Array;

  constructor(
    readonly rows: number,
    readonly columns: number,
    data?: Float32Array,
  ) {
    this.data = data ?? new Float32Array(rows * columns);
    this.grad = new Float32Array(rows * columns);
  }
}

/** Records operations; `backward` runs their gradients in reverse. */
export class Tape {
  readonly #steps: (() => void)[] = [];

  backward(): void {
    for (let i = this.#steps.length - 1; i >= 0; i--) this.#steps[i]!();
  }

  /** x W + b */
  linear(x: Matrix, w: Matrix, b: Matrix): Matrix {
    const { rows, columns: inner } = x;
    const { columns } = w;
    const y = new Matrix(rows, columns);
    for (let r = 0; r < rows; r++) {
      y.data.set(b.data, r * columns);
      for (let k = 0; k < inner; k++)
        axpy(x.data[r * inner + k]!, w.data, k * columns, y.data, r * columns, columns);
    }
    this.#steps.push(() => {
      for (let r = 0; r < rows; r++) {
        axpy(1, y.grad, r * columns, b.grad, 0, columns);
        for (let k = 0; k < inner; k++) {
          x.grad[r * inner + k]! += dot(y.grad, r * columns, w.data, k * columns, columns);
          axpy(x.data[r * inner + k]!, y.grad, r * columns, w.grad, k * columns, columns);
        }
      }
    });
    return y;
  }

  /** `b` repeats over blocks of its own rows. */
  addRepeated(a: Matrix, b: Matrix): Matrix {
    const y = new Matrix(a.rows, a.columns, Float32Array.from(a.data));
    for (let i = 0; i < y.data.length; i++) y.data[i]! += b.data[i % b.data.length]!;
    this.#steps.push(() => {
      for (let i = 0; i < y.grad.length; i++) {
        a.grad[i]! += y.grad[i]!;
        b.grad[i % b.data.length]! += y.grad[i]!;
      }
    });
    return y;
  }

  relu(x: Matrix): Matrix {
    const y = new Matrix(
      x.rows,
      x.columns,
      x.data.map((value) => Math.max(0, value)),
    );
    this.#steps.push(() => {
      for (let i = 0; i < y.grad.length; i++) if (x.data[i]! > 0) x.grad[i]! += y.grad[i]!;
    });
    return y;
  }

  layerNorm(x: Matrix, gain: Matrix, shift: Matrix): Matrix {
    const { rows, columns } = x;
    const y = new Matrix(rows, columns);
    const normal = new Float32Array(rows * columns);
    const inverse = new Float32Array(rows);
    for (let r = 0; r < rows; r++) {
      let mean = 0;
      let square = 0;
      for (let c = 0; c < columns; c++) mean += x.data[r * columns + c]! / columns;
      for (let c = 0; c < columns; c++) square += (x.data[r * columns + c]! - mean) ** 2 / columns;
      inverse[r] = 1 / Math.sqrt(square + 1e-5);
      for (let c = 0; c < columns; c++) {
        normal[r * columns + c] = (x.data[r * columns + c]! - mean) * inverse[r]!;
        y.data[r * columns + c] = normal[r * columns + c]! * gain.data[c]! + shift.data[c]!;
      }
    }
    this.#steps.push(() => {
      for (let r = 0; r < rows; r++) {
        let mean = 0;
        let along = 0;
        for (let c = 0; c < columns; c++) {
          const at = r * columns + c;
          const g = y.grad[at]! * gain.data[c]!;
          gain.grad[c]! += y.grad[at]! * normal[at]!;
          shift.grad[c]! += y.grad[at]!;
          mean += g / columns;
          along += (g * normal[at]!) / columns;
        }
        for (let c = 0; c < columns; c++) {
          const at = r * columns + c;
          x.grad[at]! += inverse[r]! * (y.grad[at]! * gain.data[c]! - mean - normal[at]! * along);
        }
      }
    });
    return y;
  }

  /** Softmax attention over blocks of `tokens` rows; q, k, v are thirds of the columns, heads are slices of them. */
  attention(qkv: Matrix, tokens: number, heads: number): Matrix {
    const width = qkv.columns / 3;
    const size = width / heads;
    const scale = 1 / Math.sqrt(size);
    const y = new Matrix(qkv.rows, width);
    const weights = new Float32Array(qkv.rows * heads * tokens);
    const { data, grad, columns } = qkv;
    for (let r = 0; r < qkv.rows; r++) {
      const first = r - (r % tokens);
      for (let h = 0; h < heads; h++) {
        const row = (r * heads + h) * tokens;
        let largest = -Infinity;
        for (let j = 0; j < tokens; j++) {
          const score =
            scale * dot(data, r * columns + h * size, data, (first + j) * columns + width + h * size, size);
          weights[row + j] = score;
          largest = Math.max(largest, score);
        }
        let sum = 0;
        for (let j = 0; j < tokens; j++) sum += weights[row + j] = Math.exp(weights[row + j]! - largest);
        for (let j = 0; j < tokens; j++) {
          weights[row + j]! /= sum;
          const value = (first + j) * columns + 2 * width + h * size;
          axpy(weights[row + j]!, data, value, y.data, r * width + h * size, size);
        }
      }
    }
    this.#steps.push(() => {
      const slopes = new Float32Array(tokens);
      for (let r = 0; r < qkv.rows; r++) {
        const first = r - (r % tokens);
        for (let h = 0; h < heads; h++) {
          const row = (r * heads + h) * tokens;
          const out = r * width + h * size;
          let mean = 0;
          for (let j = 0; j < tokens; j++) {
            const value = (first + j) * columns + 2 * width + h * size;
            slopes[j] = dot(y.grad, out, data, value, size);
            mean += slopes[j]! * weights[row + j]!;
            axpy(weights[row + j]!, y.grad, out, grad, value, size);
          }
          for (let j = 0; j < tokens; j++) {
            const slope = scale * weights[row + j]! * (slopes[j]! - mean);
            const query = r * columns + h * size;
            const key = (first + j) * columns + width + h * size;
            axpy(slope, data, key, grad, query, size);
            axpy(slope, data, query, grad, key, size);
          }
        }
      }
    });
    return y;
  }

  /** Mean of each block of `tokens` rows. */
  meanRows(x: Matrix, tokens: number): Matrix {
    const y = new Matrix(x.rows / tokens, x.columns);
    for (let r = 0; r < x.rows; r++) {
      axpy(1 / tokens, x.data, r * x.columns, y.data, Math.floor(r / tokens) * x.columns, x.columns);
    }
    this.#steps.push(() => {
      for (let r = 0; r < x.rows; r++) {
        axpy(1 / tokens, y.grad, Math.floor(r / tokens) * x.columns, x.grad, r * x.columns, x.columns);
      }
    });
    return y;
  }

  /** Mean cross entropy of softmax(x) against labels, in nats; seeds the gradient. */
  crossEntropy(x: Matrix, labels: ArrayLike<number>): number {
    let loss = 0;
    for (let r = 0; r < x.rows; r++) {
      const row = x.data.subarray(r * x.columns, (r + 1) * x.columns);
      const largest = row.reduce((max, value) => Math.max(max, value), -Infinity);
      const sum = row.reduce((total, value) => total + Math.exp(value - largest), 0);
      for (let c = 0; c < x.columns; c++) {
        const probability = Math.exp(row[c]! - largest) / sum;
        x.grad[r * x.columns + c] = (probability - (c === labels[r] ? 1 : 0)) / x.rows;
      }
      loss -= (row[labels[r]!]! - largest - Math.log(sum)) / x.rows;
    }
    return loss;
  }
}

function dot(a: Float32Array, i: number, b: Float32Array, j: number, length: number): number {
  let sum = 0;
  for (let k = 0; k < length; k++) sum += a[i + k]! * b[j + k]!;
  return sum;
}

function axpy(factor: number, a: Float32Array, i: number, b: Float32Array, j: number, length: number): void {
  for (let k = 0; k < length; k++) b[j + k]! += factor * a[i + k]!;
}
