/** Weights that are divided by their sum after the activation: what the sum runs over and what else is done decides. */
import assert from 'node:assert/strict';
import type { Feeds, Sample } from '../../converter/data/tensor.js';
import { inspect, openModel } from '../../converter/index.js';
import type { ReasonCode } from '../../converter/reasons.js';
import { checkModel } from '../../proving/check-model.js';
import { BOOL, FLOAT, ModelBuilder } from '../../proving/model-builder.js';
import { Random } from './generator/random.js';

const random = new Random(91);
const [B, H, N, D] = [2, 3, 7, 8];
const KEYS = 3;

const numbers = (dims: readonly number[]): Sample => ({
  type: 'float32',
  dims,
  data: Float32Array.from(random.normals(dims.reduce((a, c) => a * c, 1))),
});

interface Spelling {
  readonly name: string;
  readonly activation: 'Sigmoid' | 'Softmax';
  /** What happens to the weights before they meet the values. */
  readonly change: (b: ModelBuilder, weights: string) => string;
  /** Why the site stays; replaced where absent. */
  readonly stays?: ReasonCode;
}

const sum = (b: ModelBuilder, weights: string, axis = KEYS): string => b.reduce('ReduceSum', weights, axis);
const byNumber = (b: ModelBuilder, op: string, value: string, number: number): string =>
  b.op(op, [value, b.scalar(FLOAT, number)]);
const masked = (b: ModelBuilder, weights: string): string =>
  b.op('Mul', [weights, b.op('Cast', ['mask'], { to: FLOAT })]);
const over = (b: ModelBuilder, weights: string, axis = KEYS): string =>
  b.op('Div', [weights, sum(b, weights, axis)]);
const guarded = (b: ModelBuilder, weights: string): string =>
  b.op('Div', [weights, byNumber(b, 'Add', sum(b, weights), 1e-9)]);

const SPELLINGS: readonly Spelling[] = [
  { name: 'sigmoid over its sum', activation: 'Sigmoid', change: over },
  { name: 'sigmoid over its sum and an epsilon', activation: 'Sigmoid', change: guarded },
  {
    name: 'sigmoid times the reciprocal of its sum',
    activation: 'Sigmoid',
    change: (b, w) => b.op('Mul', [w, b.op('Reciprocal', [sum(b, w)])]),
  },
  {
    name: 'sigmoid over its sum without the axis, put back',
    activation: 'Sigmoid',
    change: (b, w) => b.op('Div', [w, b.unsqueeze(b.reduce('ReduceSum', w, KEYS, 0), [3])]),
  },
  {
    name: 'sigmoid over its 1-norm, at least an epsilon, expanded',
    activation: 'Sigmoid',
    change: (b, w) => {
      const norm = b.op('Max', [b.reduce('ReduceL1', w, KEYS), b.scalar(FLOAT, 1e-12)]);
      return b.op('Div', [w, b.op('Expand', [norm, b.op('Shape', [w])])]);
    },
  },
  {
    name: 'a third of a sigmoid over its sum',
    activation: 'Sigmoid',
    change: (b, w) => over(b, byNumber(b, 'Mul', w, 1 / 3)),
  },
  {
    name: 'masked sigmoid over its sum',
    activation: 'Sigmoid',
    change: (b, w) => guarded(b, masked(b, w)),
  },
  {
    name: 'sigmoid over its sum, masked, over its sum',
    activation: 'Sigmoid',
    change: (b, w) => guarded(b, masked(b, over(b, w))),
  },
  { name: 'softmax over its sum', activation: 'Softmax', change: over },
  { name: 'masked softmax over its sum', activation: 'Softmax', change: (b, w) => guarded(b, masked(b, w)) },
  {
    name: 'sigmoid over its sum over queries',
    activation: 'Sigmoid',
    change: (b, w) => over(b, w, 2),
    stays: 'axis-mismatch',
  },
  {
    name: 'sigmoid over its sum over heads',
    activation: 'Sigmoid',
    change: (b, w) => over(b, w, 1),
    stays: 'axis-mismatch',
  },
  {
    name: 'softmax over its sum over queries',
    activation: 'Softmax',
    change: (b, w) => over(b, w, 2),
    stays: 'axis-mismatch',
  },
  {
    name: 'sigmoid over its sum laid along the keys',
    activation: 'Sigmoid',
    change: (b, w) => b.op('Div', [w, b.unsqueeze(b.reduce('ReduceSum', w, KEYS, 0), [2])]),
    stays: 'weights-used-elsewhere',
  },
  {
    name: 'sigmoid over 1 and its sum',
    activation: 'Sigmoid',
    change: (b, w) => b.op('Div', [w, byNumber(b, 'Add', sum(b, w), 1)]),
    stays: 'softmax-plus-one',
  },
  {
    name: 'sigmoid over its sum, masked',
    activation: 'Sigmoid',
    change: (b, w) => masked(b, over(b, w)),
    stays: 'weights-changed',
  },
  {
    name: 'softmax weighted and over its sum',
    activation: 'Softmax',
    change: (b, w) => guarded(b, b.op('Mul', [w, 'shares'])),
    stays: 'weights-changed',
  },
];

function build({ activation, change }: Spelling): Uint8Array {
  const b = new ModelBuilder(17);
  for (const name of ['q', 'k', 'v']) b.input(name, FLOAT, ['batch', H, 'n', D]);
  b.input('mask', BOOL, ['batch', 1, 1, 'n']);
  b.input('shares', FLOAT, ['batch', 1, 1, 'n']);
  const product = b.op('MatMul', ['q', b.op('Transpose', ['k'], { perm: [0, 1, 3, 2] })]);
  const scores = byNumber(b, 'Mul', product, 1 / Math.sqrt(D));
  const weights = b.op(activation, [scores], activation === 'Softmax' ? { axis: -1 } : {});
  b.op('MatMul', [change(b, weights), 'v'], {}, 'y');
  b.output('y');
  return b.toBytes();
}

function feeds(length: number): Feeds {
  const rows = (): Sample => numbers([B, H, length, D]);
  const dims = [B, 1, 1, length];
  const mask = Uint8Array.from({ length: B * length }, (_, i) => Number(i < length || i % 3 > 0));
  const shares = Float32Array.from({ length: B * length }, (_, i) => (i % 3) / 2);
  return {
    q: rows(),
    k: rows(),
    v: rows(),
    mask: { type: 'bool', dims, data: mask },
    shares: { type: 'float32', dims, data: shares },
  };
}

describe('weights divided by their sum', () => {
  for (const spelling of SPELLINGS) {
    it(`${spelling.stays === undefined ? 'replaces' : 'leaves'} ${spelling.name}`, async () => {
      const bytes = build(spelling);
      const { sites, passedOver } = inspect(openModel(bytes));
      const reasons = [...sites, ...passedOver].map(({ reason }) => reason);
      assert.deepEqual(reasons, [spelling.stays ?? null]);
      if (spelling.stays !== undefined) return;
      const mode = spelling.activation === 'Sigmoid' ? 'fuse' : 'faithful';
      const outcome = await checkModel(bytes, [feeds(N), feeds(4)], { mode });
      assert.equal(outcome.replaced, 1, outcome.refused.join('; '));
      assert.equal(outcome.failure, null);
      assert.ok(outcome.error! < 1e-5, `differs by ${outcome.error}`);
    });
  }
});
