/** Checks of results before anything is timed. */

import { float16ToNumber } from '../../op/half.js';
import { hostData } from './kernels.js';
import type { BenchShape } from './shapes.js';

/** Largest difference, relative to the largest element, of a result that counts as right. */
export const TOLERANCE = { f32: 1e-3, f16: 2e-2 } as const;

export function numbersOf(data: Uint8Array, { type }: BenchShape): Float32Array {
  const copy = data.slice().buffer;
  return type === 'f32' ? new Float32Array(copy) : Float32Array.from(new Uint16Array(copy), float16ToNumber);
}

/** How the weights of a row come from its scores. */
export type Activation = 'sigmoid' | 'softmax';

/** Error of a few rows of a result against float64, relative to the largest element. */
export function sampledError(found: Float32Array, shape: BenchShape, activation: Activation): number {
  const { heads, headSize, queryLength, keyLength } = shape;
  const width = heads * headSize;
  const { x: q, k, v } = hostData(shape);
  let difference = 0;
  let largest = 0;
  for (let sample = 0; sample < 8; sample++) {
    const [h, i] = [(sample * 5) % heads, (sample * 977) % queryLength];
    const scores = Float64Array.from({ length: keyLength }, (_, j) => {
      let score = 0;
      for (let d = 0; d < headSize; d++)
        score += q[i * width + h * headSize + d]! * k[j * width + h * headSize + d]!;
      return score / Math.sqrt(headSize);
    });
    const y = new Float64Array(headSize);
    weightsOf(scores, activation).forEach((weight, j) => {
      for (let d = 0; d < headSize; d++) y[d]! += weight * v[j * width + h * headSize + d]!;
    });
    for (let d = 0; d < headSize; d++) {
      const error = Math.abs(found[i * width + h * headSize + d]! - y[d]!);
      if (!(error <= difference)) difference = error;
      largest = Math.max(largest, Math.abs(y[d]!));
    }
  }
  return difference / largest;
}

function weightsOf(scores: Float64Array, activation: Activation): Float64Array {
  if (activation === 'sigmoid')
    return scores.map((score) => 1 / (1 + Math.exp(Math.log(scores.length) - score)));
  const largest = scores.reduce((most, score) => Math.max(most, score), -Infinity);
  const exponentials = scores.map((score) => Math.exp(score - largest));
  const sum = exponentials.reduce((total, value) => total + value, 0);
  return exponentials.map((value) => value / sum);
}
