/** Scores of which a part is cut out, added to and written back, as relative positions beside a class token are (MViT v2). */
import assert from 'node:assert/strict';
import type { Feeds, Sample } from '../../converter/data/tensor.js';
import { inspect, openModel } from '../../converter/index.js';
import { checkModel } from '../../proving/check-model.js';
import { FLOAT, INT64, ModelBuilder } from '../../proving/model-builder.js';
import { Random } from './generator/random.js';

const random = new Random(77);
const [B, H, G, D] = [2, 2, 3, 8];
/** A class token and a grid of G x G patches. */
const N = 1 + G * G;

const numbers = (dims: readonly number[]): Sample => ({
  type: 'float32',
  dims,
  data: Float32Array.from(random.normals(dims.reduce((a, c) => a * c, 1))),
});

interface Variant {
  readonly isDynamic: boolean;
  /** One write over all axes, or one for rows within one for keys, on transposed scores. */
  readonly spelling: 'whole indices' | 'nested';
  /** What is written back: the part with a term, or twice the part. */
  readonly change: 'term' | 'factor';
  /** The first position that is written to; the part begins at 1. */
  readonly target: number;
}

function build({ isDynamic, spelling, change, target }: Variant): { bytes: Uint8Array; feeds: Feeds[] } {
  const b = new ModelBuilder(17);
  const batch = isDynamic ? 'batch' : B;
  for (const name of ['q', 'k', 'v']) b.input(name, FLOAT, [batch, H, N, D]);
  b.input('rows', FLOAT, [batch, H, G, G, G, 1]);
  b.input('columns', FLOAT, [batch, H, G, G, 1, G]);
  const product = b.op('MatMul', ['q', b.op('Transpose', ['k'], { perm: [0, 1, 3, 2] })]);
  const scores = b.op('Mul', [product, b.scalar(FLOAT, 1 / Math.sqrt(D))]);
  const cut = (value: string, axis: number): string =>
    b.op('Slice', [value, b.ints([1]), b.ints([N]), b.ints([axis])]);
  const changed = (part: string): string => {
    if (change === 'factor') return b.op('Mul', [part, b.scalar(FLOAT, 2)]);
    const six = b.op('Reshape', [part, b.ints([-1, H, G, G, G, G])]);
    const sum = b.op('Add', [b.op('Add', [six, 'rows']), 'columns']);
    return b.op('Reshape', [sum, b.ints([-1, H, N - 1, N - 1])]);
  };
  const result =
    spelling === 'whole indices'
      ? b.op('ScatterND', [scores, gridOf(b, isDynamic, target), changed(cut(cut(scores, 2), 3))])
      : nested(b, scores, cut, changed, target);
  b.op('MatMul', [b.op('Softmax', [result], { axis: -1 }), 'v'], {}, 'y');
  b.output('y');
  const feeds = [B, isDynamic ? 3 : B].map((size) => ({
    q: numbers([size, H, N, D]),
    k: numbers([size, H, N, D]),
    v: numbers([size, H, N, D]),
    rows: numbers([size, H, G, G, G, 1]),
    columns: numbers([size, H, G, G, 1, G]),
  }));
  return { bytes: b.toBytes(), feeds };
}

/** Indices [batch, H, N-1, N-1, 4] of the positions from `target` on. */
function gridOf(b: ModelBuilder, isDynamic: boolean, target: number): string {
  const range = (count: string, first: number): string =>
    b.op('Range', [b.scalar(INT64, first), b.op('Add', [count, b.scalar(INT64, first)]), b.scalar(INT64, 1)]);
  const fixed = (count: number): string => b.scalar(INT64, count);
  const batch = isDynamic ? b.op('Gather', [b.op('Shape', ['q']), b.scalar(INT64, 0)]) : fixed(B);
  const counts = [batch, fixed(H), fixed(N - 1), fixed(N - 1)];
  const shape = b.op('Concat', [...counts.map((count) => b.unsqueeze(count, [0])), b.ints([1])], { axis: 0 });
  const axes = counts.map((count, axis) => {
    const line = b.op('Reshape', [
      range(count, axis < 2 ? 0 : target),
      b.ints([0, 1, 2, 3, 4].map((at) => (at === axis ? -1 : 1))),
    ]);
    return b.op('Expand', [line, shape]);
  });
  return b.op('Concat', axes, { axis: -1 });
}

/** Writes rows of the part into the cut keys, and these into the scores, each along the first axis. */
function nested(
  b: ModelBuilder,
  scores: string,
  cut: (value: string, axis: number) => string,
  changed: (part: string) => string,
  target: number,
): string {
  const [first, second] = [
    [2, 1, 0, 3],
    [3, 1, 2, 0],
  ] as const;
  const places = (from: number): string =>
    b.constant(
      INT64,
      [N - 1, 1],
      Array.from({ length: N - 1 }, (_, i) => i + from),
    );
  const write = (data: string, part: string, perm: readonly number[], from: number): string => {
    const moved = b.op('ScatterND', [
      b.op('Transpose', [data], { perm }),
      places(from),
      b.op('Transpose', [part], { perm }),
    ]);
    return b.op('Transpose', [moved], { perm });
  };
  const rows = cut(scores, 2);
  const inner = write(rows, changed(cut(rows, 3)), second, 1);
  return write(scores, inner, first, target);
}

const PLAIN: Variant = { isDynamic: false, spelling: 'whole indices', change: 'term', target: 1 };

describe('converter on scores that are changed in part', () => {
  for (const spelling of ['whole indices', 'nested'] as const) {
    for (const isDynamic of [false, true]) {
      it(`adds a term to a part (${spelling}, ${isDynamic ? 'open' : 'fixed'} batch)`, async () => {
        const { bytes, feeds } = build({ ...PLAIN, spelling, isDynamic });
        for (const withoutFunction of [false, true]) {
          const outcome = await checkModel(bytes, feeds, { mode: 'faithful', withoutFunction });
          assert.equal(outcome.failure, null);
          assert.deepEqual(outcome.refused, []);
          assert.equal(outcome.replaced, 1);
          assert.ok(outcome.error !== null && outcome.error < 1e-5, `error ${outcome.error}`);
        }
      });
    }
  }

  for (const [title, variant] of [
    ['multiplies a part', { ...PLAIN, change: 'factor' }],
    ['writes a part back elsewhere', { ...PLAIN, target: 0 }],
    ['writes a part back elsewhere, nested', { ...PLAIN, spelling: 'nested', target: 0 }],
  ] as const) {
    it(`leaves a model that ${title}`, () => {
      const [site] = inspect(openModel(build(variant).bytes)).sites;
      assert.equal(site?.reason, 'scores-changed');
    });
  }
});
