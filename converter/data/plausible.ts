/**
 * Plausible inputs where nobody gave samples: token ids within the embedding's rows, masks of ones, positions that
 * count up, floats from N(0, 1). They exercise every layer, but they are not what the model was made for: distances
 * measured on them say that a conversion is right, not how good the converted model is at its task.
 */
import { numberToFloat16 } from '../../op/half.js';
import type { InputInfo } from './inputs.js';
import { RandomNumbers } from './random-numbers.js';
import type { SampleSource } from './source.js';
import { zeros, isSampleType, type Feeds, type Sample } from './tensor.js';

/** Sizes that stand in for free dimensions. */
export interface Sizes {
  readonly batch: number;
  readonly length: number;
  readonly past: number;
  readonly image: number;
}

/** Tried in this order until the model runs; some files only run at the sizes they were traced with. */
const SIZES: readonly Sizes[] = [
  { batch: 2, length: 10, past: 4, image: 64 },
  { batch: 1, length: 10, past: 4, image: 64 },
  { batch: 1, length: 16, past: 16, image: 96 },
  { batch: 1, length: 1, past: 4, image: 224 },
  { batch: 2, length: 16, past: 0, image: 224 },
  { batch: 1, length: 8, past: 8, image: 128 },
  { batch: 1, length: 32, past: 32, image: 256 },
  { batch: 1, length: 64, past: 0, image: 320 },
  { batch: 1, length: 77, past: 0, image: 384 },
  { batch: 1, length: 128, past: 0, image: 448 },
  { batch: 1, length: 197, past: 0, image: 512 },
  { batch: 1, length: 256, past: 0, image: 640 },
];

export interface PlausibleOptions {
  readonly seed?: number;
  readonly count?: number;
  /** Rows of the embedding table that an integer input picks from, where that is known. */
  readonly rowsOf?: (input: string) => number | undefined;
}

/**
 * Finds sizes that the model accepts and yields `count` runs of them; every second run has other sizes where the model
 * takes more than one.
 * @param accepts runs the model once; rejects where it refuses the inputs
 */
export async function plausibleSamples(
  inputs: readonly InputInfo[],
  accepts: (feeds: Feeds) => Promise<unknown>,
  { seed = 1, count = 4, rowsOf = () => undefined }: PlausibleOptions = {},
): Promise<SampleSource> {
  const accepted: Sizes[] = [];
  let refusal: unknown;
  const free = inputs.some((input) => input.shape.some((dim) => typeof dim === 'string' || dim < 0));
  for (const sizes of free ? SIZES : SIZES.slice(0, 1)) {
    try {
      await accepts(plausibleFeeds(inputs, sizes, new RandomNumbers(seed), rowsOf));
      accepted.push(sizes);
      if (accepted.length === 2) break;
    } catch (error) {
      refusal = error;
    }
  }
  if (accepted.length === 0) {
    const message = refusal instanceof Error ? refusal.message.split('\n')[0] : String(refusal);
    throw new Error(
      `no sample data was given, and the model refused all plausible random inputs: ${message}`,
    );
  }
  return {
    description: `${count} random inputs (seed ${seed})`,
    async *[Symbol.asyncIterator]() {
      for (let run = 0; run < count; run++) {
        const sizes = accepted[run % accepted.length]!;
        yield plausibleFeeds(inputs, sizes, new RandomNumbers(seed + run), rowsOf);
      }
    },
  };
}

/** One run's inputs at the given sizes. */
export function plausibleFeeds(
  inputs: readonly InputInfo[],
  sizes: Sizes,
  random: RandomNumbers,
  rowsOf: (input: string) => number | undefined = () => undefined,
): Feeds {
  const named = new Map<string, number>();
  const feeds: Record<string, Sample> = {};
  for (const input of inputs) {
    if (!isSampleType(input.type)) {
      throw new Error(`input "${input.name}" is of type ${input.type}; give sample data for it`);
    }
    const dims = input.shape.map((dim, axis) => sizeOfDim(dim, axis, input, sizes, named));
    const sample = zeros(input.type, dims);
    fill(sample, input.name, sizes, random, rowsOf(input.name));
    feeds[input.name] = sample;
  }
  return feeds;
}

function sizeOfDim(
  dim: number | string,
  axis: number,
  input: InputInfo,
  sizes: Sizes,
  named: Map<string, number>,
): number {
  if (typeof dim === 'number' && dim >= 0) return dim;
  const name = typeof dim === 'string' ? dim : '';
  const known = name === '' ? undefined : named.get(name);
  if (known !== undefined) return known;
  const terms = name.split('+').map((term) => term.trim());
  const size =
    terms.length > 1
      ? terms.reduce((sum, term) => sum + termSize(term, axis, input, sizes, named), 0)
      : termSize(name, axis, input, sizes, named);
  if (name !== '') named.set(name, size);
  return size;
}

function termSize(
  term: string,
  axis: number,
  input: InputInfo,
  sizes: Sizes,
  named: Map<string, number>,
): number {
  if (/^\d+$/.test(term)) return Number(term);
  const known = named.get(term);
  if (known !== undefined) return known;
  if (/total/i.test(term)) return sizes.past + sizes.length;
  if (/past|cache/i.test(term)) return sizes.past;
  if (/batch|^(b|n|bs|bsz)$/i.test(term)) return sizes.batch;
  if (/height|width|^(h|w)$/i.test(term)) return sizes.image;
  if (/channel|^c$/i.test(term)) return 3;
  if (/seq|len|token|time|position/i.test(term)) return sizes.length;
  if (axis === 0) return sizes.batch;
  const picture = input.shape.length === 4 && !/past|cache|mask|key|value/i.test(input.name);
  if (picture) return axis === 1 ? 3 : sizes.image;
  return sizes.length;
}

function fill(
  sample: Sample,
  name: string,
  sizes: Sizes,
  random: RandomNumbers,
  rows: number | undefined,
): void {
  const value = generator(sample, name, sizes, random, rows);
  const { data } = sample;
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) {
    for (let i = 0; i < data.length; i++) data[i] = BigInt(value(i));
  } else if (sample.type === 'float16') {
    for (let i = 0; i < data.length; i++) data[i] = numberToFloat16(value(i));
  } else {
    for (let i = 0; i < data.length; i++) data[i] = value(i);
  }
}

function generator(
  { type, dims }: Sample,
  name: string,
  sizes: Sizes,
  random: RandomNumbers,
  rows: number | undefined,
): (index: number) => number {
  const isMask = /mask/i.test(name);
  if (type.startsWith('float')) {
    if (isMask) return () => (dims.length > 2 ? 0 : 1);
    return () => random.normal();
  }
  if (isMask) return () => 1;
  if (type === 'bool') return () => 0;
  if (/position/i.test(name)) {
    const last = dims.at(-1) ?? 1;
    const start = /past/i.test(name) ? 0 : startPosition(last, sizes);
    const limit = rows ?? Infinity;
    return (index) => Math.min(start + (index % last), limit - 1);
  }
  if (/token_type|segment/i.test(name)) return () => 0;
  if (/len/i.test(name)) return () => sizes.length;
  if (type === 'uint8' && rows === undefined) return () => random.below(256);
  return () => random.below(rows ?? (/id|token/i.test(name) ? 100 : 2));
}

/** A decoder that is given one token and a cache stands behind the cache. */
function startPosition(length: number, sizes: Sizes): number {
  return length === 1 ? sizes.past : 0;
}
