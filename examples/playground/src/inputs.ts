/** Inputs for a model nobody gave data for: sizes for its free dimensions, and plausible numbers of each type. */

import type * as Ort from 'onnxruntime-web/webgpu';
import { RandomNumbers } from '../../../converter/data/random-numbers.js';
import { numberToFloat16 } from '../../../op/half.js';

type Metadata = Ort.InferenceSession.ValueMetadata;

/** Names of the free dimensions of the inputs, in order of appearance. */
export function freeDimensions(inputs: readonly Metadata[]): string[] {
  const names = new Set<string>();
  for (const input of inputs)
    if (input.isTensor)
      input.shape.forEach((dim, axis) => isFree(dim) && names.add(nameOf(dim, input.name, axis)));
  return [...names];
}

/** A size to begin with. */
export function usualSize(dimension: string): number {
  return /batch|^n$/i.test(dimension) ? 1 : /past|cache/i.test(dimension) ? 0 : 128;
}

export type Sizes = ReadonlyMap<string, number>;

/** Feeds of the given sizes: the same for the same seed. */
export function plausibleFeeds(
  ort: typeof Ort,
  inputs: readonly Metadata[],
  sizes: Sizes,
  seed: number,
): Record<string, Ort.Tensor> {
  const random = new RandomNumbers(seed);
  return Object.fromEntries(inputs.map((input) => [input.name, tensorFor(ort, input, sizes, random)]));
}

const isFree = (dim: number | string): dim is string => typeof dim === 'string';
const nameOf = (dim: string, input: string, axis: number): string =>
  dim === '' ? `${input}, axis ${axis}` : dim;

/** Token ids are kept below this, since the number of tokens is not known from the outside. */
const MANY_TOKENS = 64;

function tensorFor(ort: typeof Ort, input: Metadata, sizes: Sizes, random: RandomNumbers): Ort.Tensor {
  if (!input.isTensor) throw new Error(`input '${input.name}' is no tensor; this page can only make tensors`);
  const dims = input.shape.map((dim, axis) =>
    isFree(dim) ? (sizes.get(nameOf(dim, input.name, axis)) ?? 1) : dim,
  );
  const count = dims.reduce((product, dim) => product * dim, 1);
  const isMask = /mask/i.test(input.name);
  const isPosition = /position/i.test(input.name);
  const last = dims.at(-1) ?? 1;
  const whole = (index: number): number =>
    isMask
      ? 1
      : isPosition
        ? index % Math.max(1, last)
        : random.below(/type|segment/i.test(input.name) ? 1 : MANY_TOKENS);
  const fill = <Value>(value: (index: number) => Value): Value[] =>
    Array.from({ length: count }, (_, i) => value(i));
  switch (input.type) {
    case 'int64':
      return new ort.Tensor('int64', BigInt64Array.from(fill((i) => BigInt(whole(i)))), dims);
    case 'int32':
      return new ort.Tensor('int32', Int32Array.from(fill(whole)), dims);
    case 'bool':
      return new ort.Tensor('bool', new Uint8Array(count).fill(1), dims);
    case 'float16': {
      const bits = Uint16Array.from(fill(() => numberToFloat16(isMask ? 0 : random.normal())));
      const Float16 = (globalThis as { Float16Array?: new (bytes: ArrayBuffer) => Uint16Array }).Float16Array;
      return new ort.Tensor('float16', Float16 === undefined ? bits : new Float16(bits.buffer), dims);
    }
    case 'float32':
      return new ort.Tensor('float32', Float32Array.from(fill(() => (isMask ? 0 : random.normal()))), dims);
    default:
      throw new Error(
        `input '${input.name}' has type ${input.type}; this page makes float, int and bool inputs`,
      );
  }
}
