/** Attention inside If branches and model functions, and models that share weights between branches. */
import assert from 'node:assert/strict';
import proto from 'onnx-proto';
import { checkModel } from '../../proving/check-model.js';
import type { Feeds } from '../../converter/data/tensor.js';
import { convert, inspect, openModel } from '../../converter/index.js';
import { Random } from './generator/random.js';
import { BOOL, FLOAT, ModelBuilder } from '../../proving/model-builder.js';

const random = new Random(5);
const [B, H, N, D, P] = [2, 2, 5, 4, 3];

/** softmax(Q K^T / sqrt(D)) V of [B,H,N,D] values. */
function attention(b: ModelBuilder, query: string, key: string, value: string, output: string): void {
  const product = b.op('MatMul', [query, b.op('Transpose', [key], { perm: [0, 1, 3, 2] })]);
  const weights = b.op('Softmax', [b.op('Mul', [product, b.scalar(FLOAT, 0.5)])], { axis: -1 });
  b.op('MatMul', [weights, value], {}, output);
}

const numbers = (dims: readonly number[]): Feeds[string] => ({
  type: 'float32',
  dims,
  data: Float32Array.from(random.normals(dims.reduce((a, c) => a * c, 1))),
});

async function verify(bytes: Uint8Array, feeds: readonly Feeds[], sites: number): Promise<void> {
  const outcome = await checkModel(bytes, feeds, { mode: 'faithful' });
  assert.equal(outcome.failure, null);
  assert.equal(outcome.replaced, sites);
  assert.ok(outcome.error !== null && outcome.error < 1e-4, `error ${outcome.error}`);
}

describe('converter in nested scopes', () => {
  it('replaces attention in both branches of a merged decoder', async () => {
    const b = new ModelBuilder(17);
    b.input('use_past', BOOL, [1]);
    for (const name of ['q', 'k', 'v']) b.input(name, FLOAT, [B, H, N, D]);
    for (const name of ['past_k', 'past_v']) b.input(name, FLOAT, [B, H, P, D]);
    const branch = (withPast: boolean): proto.onnx.IGraphProto => {
      const inner = new ModelBuilder(17);
      const join = (past: string, fresh: string): string =>
        withPast ? inner.op('Concat', [past, fresh], { axis: 2 }, `joined_${fresh}`) : fresh;
      attention(inner, 'q', join('past_k', 'k'), join('past_v', 'v'), withPast ? 'y_past' : 'y_first');
      inner.output(withPast ? 'y_past' : 'y_first');
      for (const fresh of ['k', 'v']) {
        const present = withPast ? `joined_${fresh}` : inner.op('Identity', [fresh], {}, `first_${fresh}`);
        inner.output(present);
      }
      inner.initializers.forEach((entry) => (entry.name = `${String(entry.name)}${withPast ? '_p' : '_f'}`));
      for (const node of inner.nodes) {
        node.input = node.input!.map((name) =>
          /^c\d+$/.test(name)
            ? `${name}${withPast ? '_p' : '_f'}`
            : /^v\d+$/.test(name)
              ? `${name}${withPast ? '_p' : '_f'}`
              : name,
        );
        node.output = node.output!.map((name) =>
          /^v\d+$/.test(name) ? `${name}${withPast ? '_p' : '_f'}` : name,
        );
      }
      return inner.graph(withPast ? 'with_past' : 'first');
    };
    b.node('If', ['use_past'], ['chosen', 'present_k', 'present_v'], {
      then_branch: { graph: branch(true) },
      else_branch: { graph: branch(false) },
    });
    b.op('Identity', ['chosen'], {}, 'y');
    for (const name of ['y', 'present_k', 'present_v']) b.output(name);
    const base = {
      q: numbers([B, H, N, D]),
      k: numbers([B, H, N, D]),
      v: numbers([B, H, N, D]),
      past_k: numbers([B, H, P, D]),
      past_v: numbers([B, H, P, D]),
    };
    const flag = (value: number): Feeds[string] => ({ type: 'bool', dims: [1], data: Uint8Array.of(value) });
    const bytes = b.toBytes();
    await verify(
      bytes,
      [
        { ...base, use_past: flag(1) },
        { ...base, use_past: flag(0) },
      ],
      2,
    );
    const { sites } = inspect(openModel(bytes));
    assert.deepEqual(new Set(sites.map(({ cacheForm }) => cacheForm)), new Set(['past/present', 'none']));
    assert.deepEqual(
      new Set(sites.map(({ scope }) => scope.split('.').at(-1))),
      new Set(['then_branch', 'else_branch']),
    );
  });

  it('replaces attention whose activation sits in a model function', async () => {
    const b = new ModelBuilder(17);
    for (const name of ['q', 'k', 'v']) b.input(name, FLOAT, [B, H, N, D]);
    const product = b.op('MatMul', ['q', b.op('Transpose', ['k'], { perm: [0, 1, 3, 2] })]);
    const weights = b.op('scaled_softmax', [product], { dim: -1 }, 'weights', 'local');
    b.op('MatMul', [weights, 'v'], {}, 'y');
    b.output('y');
    const { FunctionProto, AttributeProto } = proto.onnx;
    const body = new ModelBuilder(17);
    body.node('Constant', [], ['half'], { value_float: { float: 0.5 } });
    body.op('Mul', ['x', 'half'], {}, 'scaled');
    body.node('Softmax', ['scaled'], ['result']);
    body.nodes.at(-1)!.attribute = [
      { name: 'axis', refAttrName: 'dim', type: AttributeProto.AttributeType.INT },
    ];
    const scaledSoftmax = FunctionProto.create({
      name: 'scaled_softmax',
      domain: 'local',
      input: ['x'],
      output: ['result'],
      attribute: ['dim'],
      node: body.nodes,
      opsetImport: [{ domain: '', version: 17 }],
    });
    const opsetImport = [
      { domain: '', version: 17 },
      { domain: 'local', version: 1 },
    ];
    const bytes = b.toBytes({ functions: [scaledSoftmax], opsetImport });
    await verify(
      bytes,
      [{ q: numbers([B, H, N, D]), k: numbers([B, H, N, D]), v: numbers([B, H, N, D]) }],
      1,
    );
  });

  it('does not put a second portable function into a converted model', () => {
    const b = new ModelBuilder(17);
    for (const name of ['q', 'k', 'v']) b.input(name, FLOAT, [B, H, N, D]);
    attention(b, 'q', 'k', 'v', 'first');
    attention(b, 'first', 'k', 'v', 'y');
    b.output('y');
    const half = convert(openModel(b.toBytes()), { mode: 'faithful', sites: ({ depth }) => depth < 0.5 });
    assert.equal(half.replaced.length, 1);
    assert.equal(half.portableFormMissing, null);
    const whole = convert(openModel(half.toBytes()), { mode: 'faithful' });
    assert.equal(whole.replaced.length, 1);
    assert.match(whole.portableFormMissing ?? '', /held a function/);
    assert.equal(openModel(whole.toBytes()).functions.length, 0);
  });
});
