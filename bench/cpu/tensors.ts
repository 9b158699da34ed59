/** The data of a shape, and the layouts that contenders want it in. */
import * as ort from 'onnxruntime-node';
import { float16ToNumber, numberToFloat16 } from '../../op/half.js';
import { maskedFrom, type Shape } from './shapes.js';

/** Q, K and V as [B,H,N,D]; values that the shape's type holds exactly. */
export interface Data {
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
}

/** `heads-first` [B,H,N,D]; `rows-first` [B,N,H*D]; `transposed` [B,H,D,N]. */
export type Layout = 'heads-first' | 'rows-first' | 'transposed';

export function randomData(shape: Shape): Data {
  const { batch, heads, kvHeads, queryLength, keyLength, headSize, type } = shape;
  let state = 12345;
  const uniform = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 32) * 2 - 1;
  };
  const tensor = (count: number): Float32Array =>
    Float32Array.from({ length: count }, () =>
      type === 'float16' ? float16ToNumber(numberToFloat16(uniform())) : uniform(),
    );
  return {
    q: tensor(batch * heads * queryLength * headSize),
    k: tensor(batch * kvHeads * keyLength * headSize),
    v: tensor(batch * kvHeads * keyLength * headSize),
  };
}

export function arrange(
  data: Float32Array,
  [batch, heads, length, size]: readonly [number, number, number, number],
  layout: Layout,
): { dims: number[]; data: Float32Array } {
  if (layout === 'heads-first') return { dims: [batch, heads, length, size], data };
  const out = new Float32Array(data.length);
  let from = 0;
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < heads; h++)
      for (let n = 0; n < length; n++)
        for (let d = 0; d < size; d++) {
          const to =
            layout === 'rows-first'
              ? ((b * length + n) * heads + h) * size + d
              : ((b * heads + h) * size + d) * length + n;
          out[to] = data[from++]!;
        }
  const dims = layout === 'rows-first' ? [batch, length, heads * size] : [batch, heads, size, length];
  return { dims, data: out };
}

/** Each kv head as often as query heads read it. */
export function expandHeads(data: Float32Array, shape: Shape): Float32Array {
  const { batch, heads, kvHeads, keyLength, headSize } = shape;
  const size = keyLength * headSize;
  const group = heads / kvHeads;
  if (group === 1) return data;
  const out = new Float32Array(batch * heads * size);
  for (let head = 0; head < batch * heads; head++) {
    const from = Math.floor(head / group) * size;
    out.set(data.subarray(from, from + size), head * size);
  }
  return out;
}

export function ortTensor(shape: Shape, dims: readonly number[], data: Float32Array): ort.Tensor {
  if (shape.type === 'float') return new ort.Tensor('float32', data, dims);
  return new ort.Tensor('float16', Uint16Array.from(data, numberToFloat16), dims);
}

/** `[B,1,1,Nk]` of 0 and -10000. */
export function keyMask(shape: Shape): Float32Array {
  const { batch, keyLength } = shape;
  return Float32Array.from({ length: batch * keyLength }, (_, i) =>
    i % keyLength < maskedFrom(shape) ? 0 : -10000,
  );
}
