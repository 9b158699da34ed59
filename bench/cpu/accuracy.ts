/** The error of a contender's output against float64, over some rows. */
import type * as ort from 'onnxruntime-node';
import { float16ToNumber } from '../../op/half.js';
import { sigmoid } from '../../op/reference.js';
import type { Contender } from './contenders.js';
import { isVisible, maskedFrom, type Shape } from './shapes.js';
import { randomData } from './tensors.js';

const ROWS = 6;

/** The largest difference over some rows, relative to the largest value of those rows. Of a chain of one call. */
export function errorOf(shape: Shape, contender: Contender, output: ort.Tensor): number {
  const { batch, heads, queryLength, headSize } = shape;
  const data = randomData(shape);
  const found = output.data as Float32Array | Uint16Array;
  let worst = 0;
  let largest = 0;
  for (let sample = 0; sample < ROWS; sample++) {
    const fraction = (sample + 0.5) / ROWS;
    const b = Math.floor(batch * fraction);
    const h = (sample * 7) % heads;
    const i = Math.floor(queryLength * fraction);
    expectedRow(shape, contender.activation, data, b, h, i).forEach((expected, d) => {
      const at =
        contender.layout === 'rows-first'
          ? ((b * queryLength + i) * heads + h) * headSize + d
          : ((b * heads + h) * queryLength + i) * headSize + d;
      const value = shape.type === 'float16' ? float16ToNumber(found[at]!) : found[at]!;
      worst = Math.max(worst, Math.abs(value - expected));
      largest = Math.max(largest, Math.abs(expected));
    });
  }
  return worst / largest;
}

function expectedRow(
  shape: Shape,
  activation: Contender['activation'],
  { q, k, v }: ReturnType<typeof randomData>,
  b: number,
  h: number,
  i: number,
): Float64Array {
  const { heads, kvHeads, queryLength, keyLength, headSize } = shape;
  const query = ((b * heads + h) * queryLength + i) * headSize;
  const head = (b * kvHeads + Math.floor((h * kvHeads) / heads)) * keyLength * headSize;
  const seen: number[] = [];
  for (let j = 0; j < maskedFrom(shape); j++) if (isVisible(shape, i, j)) seen.push(j);
  const scores = seen.map((j) => {
    let sum = 0;
    for (let d = 0; d < headSize; d++) sum += q[query + d]! * k[head + j * headSize + d]!;
    return sum / Math.sqrt(headSize);
  });
  const greatest = scores.reduce((a, score) => Math.max(a, score), -Infinity);
  const total = scores.reduce((sum, score) => sum + Math.exp(score - greatest), 0);
  const row = new Float64Array(headSize);
  scores.forEach((score, n) => {
    const weight =
      activation === 'softmax' ? Math.exp(score - greatest) / total : sigmoid(score - Math.log(keyLength));
    for (let d = 0; d < headSize; d++) row[d]! += weight * v[head + seen[n]! * headSize + d]!;
  });
  return row;
}
