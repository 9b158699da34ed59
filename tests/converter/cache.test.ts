/** Keys and values of earlier calls: where the operator takes the place of the model's own joins, and where it must not. */
import assert from 'node:assert/strict';
import { checkModel } from '../../proving/check-model.js';
import type { Feeds, Sample } from '../../converter/data/tensor.js';
import { convert, inspect, openModel } from '../../converter/index.js';
import { Random } from './generator/random.js';
import { FLOAT, INT64, ModelBuilder } from '../../proving/model-builder.js';

const random = new Random(23);
const [B, H, K, D] = [2, 4, 2, 8];

const numbers = (dims: readonly number[]): Sample => ({
  type: 'float32',
  dims,
  data: Float32Array.from(random.normals(dims.reduce((a, c) => a * c, 1))),
});

/** How the model below differs from the plain one. */
interface Variant {
  /** Axis order of the cache: heads before positions, or after. */
  readonly order?: 'heads first' | 'positions first';
  readonly mask?: 'none' | 'causal' | 'length of present';
  /** The values are the keys. */
  readonly shares?: boolean;
  /** A factor on the joined keys. */
  readonly scalesKeys?: boolean;
  readonly presents?: boolean;
  /** A second site without a past follows. */
  readonly crosses?: boolean;
}

/** A decoder's attention with shared key heads over a cache: [B,H,N,D] queries, [B,K,P,D] past, [B,K,N,D] new rows. */
function decoder(variant: Variant): Uint8Array {
  const b = new ModelBuilder(17);
  b.input('q', FLOAT, ['batch', H, 'n', D]);
  const isHeadsFirst = variant.order !== 'positions first';
  const cache = (length: string): (number | string)[] =>
    isHeadsFirst ? ['batch', K, length, D] : ['batch', length, K, D];
  const join = (name: string): string => {
    b.input(`past_${name}`, FLOAT, cache('past'));
    b.input(name, FLOAT, cache('n'));
    if (variant.presents !== false) b.output(`present_${name}`);
    const joined = b.op('Concat', [`past_${name}`, name], { axis: isHeadsFirst ? 2 : 1 }, `present_${name}`);
    return isHeadsFirst ? joined : b.op('Transpose', [joined], { perm: [0, 2, 1, 3] });
  };
  const repeat = (name: string): string => {
    const five = b.unsqueeze(name, [2]);
    const wide = b.op('Expand', [five, b.ints([1, 1, H / K, 1, 1])]);
    const shape = b.op('Concat', [b.size(name, 0), b.ints([H]), b.size(name, 2), b.ints([D])], { axis: 0 });
    return b.op('Reshape', [wide, shape]);
  };
  const joinedKey = join('k');
  const key = repeat(variant.scalesKeys ? b.op('Mul', [joinedKey, b.scalar(FLOAT, 0.5)]) : joinedKey);
  const value = variant.shares ? key : repeat(join('v'));
  let scores = attend(b, 'q', key);
  const length = (name: string, axis: number): string =>
    b.op('Gather', [b.op('Shape', [name]), b.scalar(INT64, axis)]);
  const range = (count: string): string => b.op('Range', [b.scalar(INT64, 0), count, b.scalar(INT64, 1)]);
  if (variant.mask === 'causal') {
    const past = length('past_k', isHeadsFirst ? 2 : 1);
    const position = b.op('Add', [range(length('q', 2)), past]);
    const keys = range(b.op('Add', [past, length('q', 2)]));
    const isLater = b.op('Greater', [b.unsqueeze(keys, [0]), b.unsqueeze(position, [1])]);
    scores = b.op('Where', [isLater, b.scalar(FLOAT, -Infinity), scores]);
  } else if (variant.mask === 'length of present') {
    const far = b.op('Cast', [range(length('present_k', 2))], { to: FLOAT });
    scores = b.op('Add', [scores, b.op('Sin', [far])]);
  }
  const result = b.op('MatMul', [b.op('Softmax', [scores], { axis: -1 }), value], {}, 'y');
  b.output('y');
  if (variant.crosses) {
    for (const name of ['cross_k', 'cross_v']) b.input(name, FLOAT, ['batch', H, 'm', D]);
    const weights = b.op('Softmax', [attend(b, result, 'cross_k')], { axis: -1 });
    b.op('MatMul', [weights, 'cross_v'], {}, 'z');
    b.output('z');
  }
  return b.toBytes();
}

function attend(b: ModelBuilder, query: string, key: string): string {
  const product = b.op('MatMul', [query, b.op('Transpose', [key], { perm: [0, 1, 3, 2] })]);
  return b.op('Mul', [product, b.scalar(FLOAT, 1 / Math.sqrt(D))]);
}

/** Inputs with the given numbers of past and new positions. */
function feedsFor(variant: Variant, past: number, fresh: number): Feeds {
  const rows = (count: number): Sample =>
    numbers(variant.order === 'positions first' ? [B, count, K, D] : [B, K, count, D]);
  return {
    q: numbers([B, H, fresh, D]),
    past_k: rows(past),
    k: rows(fresh),
    past_v: rows(past),
    v: rows(fresh),
    cross_k: numbers([B, H, 6, D]),
    cross_v: numbers([B, H, 6, D]),
  };
}

const LENGTHS = [
  [3, 5],
  [0, 4],
  [7, 1],
  [0, 1],
  [90, 12],
] as const;

async function keeps(variant: Variant, sites = 1): Promise<void> {
  const bytes = decoder(variant);
  const feeds = LENGTHS.map(([past, fresh]) => feedsFor(variant, past, fresh));
  for (const withoutFunction of [false, true]) {
    const outcome = await checkModel(bytes, feeds, { mode: 'faithful', withoutFunction });
    assert.equal(outcome.failure, null);
    assert.equal(outcome.replaced, sites);
    assert.ok(outcome.error !== null && outcome.error < 1e-5, `error ${outcome.error}`);
  }
}

function operations(bytes: Uint8Array): string[] {
  return openModel(convert(openModel(bytes), { mode: 'faithful' }).toBytes()).graph.nodes.map(
    ({ opType }) => opType,
  );
}

describe('converter on caches', () => {
  const taken: [string, Variant, string][] = [
    ['of shared key heads', {}, 'past/present'],
    ['under a causal mask, which becomes an attribute', { mask: 'causal' }, 'past/present'],
    ['whose joined keys are scaled', { scalesKeys: true }, 'past/present'],
    ['that no output reports', { presents: false }, 'past'],
  ];
  for (const [title, variant, form] of taken) {
    it(`lets the operator join past and new keys ${title}`, async () => {
      await keeps(variant);
      const [site] = inspect(openModel(decoder(variant))).sites;
      assert.equal(site?.cacheForm, form);
      assert.equal(site.kvHeads, K);
      assert.deepEqual(site.mask, variant.mask === 'causal' ? ['causal'] : []);
      const left = operations(decoder(variant));
      assert.ok(!left.includes('Concat') && !left.includes('Where'), left.join());
    });
  }

  it('yields presents under the names that the model gave them', () => {
    const converted = openModel(convert(openModel(decoder({})), { mode: 'faithful' }).toBytes());
    const node = converted.graph.nodes.find(({ opType }) => opType === 'SigmoidAttention');
    assert.deepEqual(node?.outputs.slice(1), ['present_k', 'present_v']);
    assert.deepEqual(node?.inputs.slice(4, 6), ['past_k', 'past_v']);
  });

  it('gives a site without a past an empty one, so that one portable function serves both', async () => {
    await keeps({ crosses: true }, 2);
    const conversion = convert(openModel(decoder({ crosses: true })), { mode: 'faithful' });
    assert.equal(conversion.portableFormMissing, null);
    assert.ok(conversion.replaced.every(({ inputs }) => inputs.past_key !== undefined));
  });

  const left: [string, Variant][] = [
    ['with positions before heads', { order: 'positions first' }],
    ['whose keys are the values', { shares: true }],
    ['whose length is read before the operator can yield it', { mask: 'length of present' }],
  ];
  for (const [title, variant] of left) {
    it(`leaves the join of a cache ${title} in the model`, async () => {
      await keeps(variant);
      const bytes = decoder(variant);
      assert.equal(inspect(openModel(bytes)).sites[0]?.cacheForm, 'past joined by the model');
      assert.ok(operations(bytes).includes('Concat'));
    });
  }
});
