/** Masks recognised by their numbers: what becomes an attribute, and what stays a tensor because a small sample could mislead. */
import assert from 'node:assert/strict';
import { checkModel } from '../../proving/check-model.js';
import { convert, openModel, type Site } from '../../converter/index.js';
import { Random } from './generator/random.js';
import { BOOL, FLOAT, INT64, ModelBuilder } from '../../proving/model-builder.js';

const random = new Random(9);
const [H, D] = [2, 4];

type Mask = (b: ModelBuilder, scores: string) => string;

function model(mask: Mask, opset = 17): Uint8Array {
  const b = new ModelBuilder(opset);
  for (const name of ['q', 'k', 'v']) b.input(name, FLOAT, [1, H, 'n', D]);
  const product = b.op('MatMul', ['q', b.op('Transpose', ['k'], { perm: [0, 1, 3, 2] })]);
  const weights = b.op('Softmax', [mask(b, b.op('Mul', [product, b.scalar(FLOAT, 0.5)]))], { axis: -1 });
  b.op('MatMul', [weights, 'v'], {}, 'y');
  b.output('y');
  return b.toBytes();
}

/** distance i - j over the current length, [n, n] */
function distance(b: ModelBuilder): string {
  const length = b.op('Gather', [b.op('Shape', ['q']), b.scalar(INT64, 2)]);
  const range = b.op('Range', [b.scalar(INT64, 0), length, b.scalar(INT64, 1)]);
  return b.op('Sub', [b.unsqueeze(range, [1]), b.unsqueeze(range, [0])]);
}

const lowest = -3.4028234663852886e38;
const hideWhere = (b: ModelBuilder, scores: string, hidden: string): string =>
  b.op('Where', [hidden, b.scalar(FLOAT, lowest), scores]);

/** A buffer of the largest length, cut to the current one on both axes. */
function sliced(b: ModelBuilder, size: number, value: (i: number, j: number) => number): string {
  const numbers = Array.from({ length: size * size }, (_, at) => value(Math.floor(at / size), at % size));
  const buffer = b.constant(BOOL, [size, size], numbers);
  const length = b.size('q', 2);
  const rows = b.op('Slice', [buffer, b.ints([0]), length, b.ints([0])]);
  return b.op('Slice', [rows, b.ints([0]), length, b.ints([1])]);
}

interface Case {
  readonly title: string;
  readonly mask: Mask;
  readonly text: Site['maskText'];
  readonly attributes: Readonly<Record<string, number>>;
}

const CASES: readonly Case[] = [
  {
    title: 'a causal comparison of positions',
    mask: (b, scores) => hideWhere(b, scores, b.op('Less', [distance(b), b.scalar(INT64, 0)])),
    text: 'causal',
    attributes: { is_causal: 1, left_window_size: -1 },
  },
  {
    title: 'a causal window narrower than the sample',
    mask: (b, scores) => {
      const far = b.op('Greater', [distance(b), b.scalar(INT64, 3)]);
      return hideWhere(b, scores, b.op('Or', [far, b.op('Less', [distance(b), b.scalar(INT64, 0)])]));
    },
    text: 'causal+window',
    attributes: { is_causal: 1, left_window_size: 3 },
  },
  {
    title: 'a causal window far wider than the sample',
    mask: (b, scores) => {
      const far = b.op('Greater', [distance(b), b.scalar(INT64, 100)]);
      return hideWhere(b, scores, b.op('Or', [far, b.op('Less', [distance(b), b.scalar(INT64, 0)])]));
    },
    text: 'tensor',
    attributes: { is_causal: 0, left_window_size: -1 },
  },
  {
    title: 'a causal buffer cut to the current length',
    mask: (b, scores) =>
      b.op('Where', [sliced(b, 64, (i, j) => (j <= i ? 1 : 0)), scores, b.scalar(FLOAT, -Infinity)]),
    text: 'causal',
    attributes: { is_causal: 1, left_window_size: -1 },
  },
  {
    title: 'a buffer whose window shows at its end only',
    mask: (b, scores) =>
      b.op('Where', [
        sliced(b, 64, (i, j) => (j <= i && j > i - 48 ? 1 : 0)),
        scores,
        b.scalar(FLOAT, -Infinity),
      ]),
    text: 'tensor',
    attributes: { is_causal: 0, left_window_size: -1 },
  },
  {
    title: 'a mask of zeros',
    mask: (b, scores) => b.op('Add', [scores, b.op('Expand', [b.scalar(FLOAT, 0), b.op('Shape', [scores])])]),
    text: 'none',
    attributes: { is_causal: 0 },
  },
];

describe('masks', () => {
  for (const { title, mask, text, attributes } of CASES) {
    it(`reads ${title} as ${text}`, async () => {
      const bytes = model(mask);
      const [replacement] = convert(openModel(bytes), { mode: 'faithful' }).replaced;
      assert.equal(replacement?.site.maskText, text);
      for (const [name, value] of Object.entries(attributes))
        assert.equal(replacement.attributes[name], value, name);
      for (const length of [5, 60]) {
        const feed = Object.fromEntries(
          ['q', 'k', 'v'].map((name) => [
            name,
            {
              type: 'float32' as const,
              dims: [1, H, length, D],
              data: Float32Array.from(random.normals(H * length * D)),
            },
          ]),
        );
        const outcome = await checkModel(bytes, [feed], { mode: 'faithful' });
        assert.equal(outcome.failure, null);
        assert.ok(outcome.error !== null && outcome.error < 1e-4, `length ${length}: error ${outcome.error}`);
      }
    });
  }

  it('keep the mean of the values for rows that a finite mask hides as a whole', async () => {
    const b = new ModelBuilder(17);
    for (const name of ['q', 'k', 'v']) b.input(name, FLOAT, [1, H, 4, D]);
    b.input('mask', FLOAT, [1, 1, 4, 4]);
    const product = b.op('MatMul', ['q', b.op('Transpose', ['k'], { perm: [0, 1, 3, 2] })]);
    b.op('MatMul', [b.op('Softmax', [b.op('Add', [product, 'mask'])], { axis: -1 }), 'v'], {}, 'y');
    b.output('y');
    const numbers = {
      type: 'float32' as const,
      dims: [1, H, 4, D],
      data: Float32Array.from(random.normals(H * 4 * D)),
    };
    for (const hidden of [lowest, -1e9, -10000]) {
      const mask = {
        type: 'float32' as const,
        dims: [1, 1, 4, 4],
        data: Float32Array.from({ length: 16 }, (_, i) => (i < 4 || i % 4 === 3 ? hidden : 0)),
      };
      const outcome = await checkModel(b.toBytes(), [{ q: numbers, k: numbers, v: numbers, mask }], {
        mode: 'faithful',
      });
      assert.ok(outcome.error !== null && outcome.error < 1e-3, `fill ${hidden}: error ${outcome.error}`);
    }
  });
});
