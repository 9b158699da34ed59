/** Verification passes right conversions of every mode and fails wrong ones. */
import assert from 'node:assert/strict';
import proto from 'onnx-proto';
import { convert, openModel, type Mode, type SiteParameters } from '../../converter/index.js';
import { openRuntime, type Runtime } from '../../converter/verify/runtime.js';
import type { Verification } from '../../converter/verify/verification.js';
import { verify } from '../../converter/verify/verify.js';
import { provenanceOf } from '../../converter/verify/provenance.js';
import { FLOAT, ModelBuilder } from '../../proving/model-builder.js';
import { attentionModel } from '../cli/small-models.js';

/** The model in both branches of an `If`, as merged decoders are written. */
function inBranches(bytes: Uint8Array): Uint8Array {
  const model = proto.onnx.ModelProto.decode(bytes);
  const graph = model.graph!;
  const [x, y] = [graph.input!, graph.output!];
  const branch = (name: string): proto.onnx.IAttributeProto => {
    const made = (value: string): string => (value === 'x' ? value : `${name}/${value}`);
    const node = graph.node!.map((entry) => ({
      ...entry,
      input: entry.input!.map((value) =>
        graph.initializer!.some((tensor) => tensor.name === value) ? value : made(value),
      ),
      output: entry.output!.map(made),
    }));
    return { name, type: 5, g: { name, node, output: y.map((value) => ({ ...value, name: made('y') })) } };
  };
  const choice = proto.onnx.NodeProto.create({
    opType: 'If',
    input: ['second'],
    output: ['y'],
    attribute: [branch('then_branch'), branch('else_branch')],
  });
  const second = { name: 'second', type: { tensorType: { elemType: 9, shape: { dim: [] } } } };
  model.graph = proto.onnx.GraphProto.create({
    name: 'merged',
    node: [choice],
    input: [...x, second],
    output: y,
    initializer: graph.initializer!,
  });
  return proto.onnx.ModelProto.encode(model).finish();
}

describe('verification', function () {
  this.timeout(60_000);
  let runtime: Runtime;
  before(async () => {
    runtime = await openRuntime();
  });

  /** @param wrong what the converted model gets in place of `parameters` */
  async function verified(
    bytes: Uint8Array,
    mode: Mode,
    parameters: SiteParameters = {},
    wrong: SiteParameters = parameters,
  ): Promise<Verification> {
    const original = { model: openModel(bytes), folder: '.' };
    const right = convert(original.model, { mode, parameters: () => parameters });
    const made = convert(original.model, { mode, parameters: () => wrong });
    return verify(
      {
        original,
        converted: { model: openModel(made.toBytes()), folder: '.' },
        mode,
        replaced: right.replaced,
        parametersOf: () => parameters,
      },
      runtime,
    );
  }

  const softmax = attentionModel({ layers: 2 });
  const causal = attentionModel({ layers: 2, causal: true });
  const sigmoid = attentionModel({ layers: 2, activation: 'Sigmoid' });
  const fitted: SiteParameters = {
    bias: 0.1,
    biasMode: 'neg_log_total',
    headBias: [0.5, -0.25],
    headScale: [0.75, 1.5],
    headGain: [1.25, 0.5],
  };

  const rights: readonly [string, Uint8Array, Mode, SiteParameters][] = [
    ['fuse', sigmoid, 'fuse', {}],
    ['faithful', softmax, 'faithful', {}],
    ['faithful, causal', causal, 'faithful', {}],
    ['paper', softmax, 'paper', {}],
    ['paper, causal: counts what a row sees', causal, 'paper', {}],
    ['calibrated, per head', softmax, 'calibrated', fitted],
    ['calibrated, normalised', causal, 'calibrated', { normalize: true, bias: 0, headBias: [-20, -30] }],
  ];
  for (const [name, bytes, mode, parameters] of rights) {
    it(`passes ${name}`, async () => {
      const { passed, structure, sites, drift, verdict } = await verified(bytes, mode, parameters);
      assert.equal(passed, true, verdict);
      assert.equal(sites.length, 2);
      const exact = mode === 'fuse' || mode === 'faithful';
      for (const { maxRelative } of exact ? drift : structure)
        assert.ok(maxRelative < 1e-5, String(maxRelative));
      assert.equal(structure.length, exact ? 0 : 1);
    });
  }

  const wrongs: readonly [string, Mode, SiteParameters, SiteParameters][] = [
    ['a bias near the scores in faithful mode', 'faithful', {}, { bias: -2 }],
    ['another bias', 'paper', {}, { biasMode: 'none', bias: -2 }],
    ['heads in another order', 'calibrated', fitted, { ...fitted, headBias: [-0.25, 0.5] }],
    ['a forgotten gain', 'calibrated', fitted, { ...fitted, headGain: [1, 1] }],
    ['a forgotten temperature', 'calibrated', fitted, { ...fitted, headScale: [1, 1] }],
  ];
  for (const [name, mode, parameters, wrong] of wrongs) {
    it(`fails ${name}`, async () => {
      const { passed, verdict } = await verified(softmax, mode, parameters, wrong);
      assert.equal(passed, false, verdict);
      assert.match(verdict, /^verification failed/);
    });
  }

  for (const mode of ['faithful', 'paper'] as const) {
    it(`judges ${mode} site by site where the model rounds at run time`, async () => {
      const bytes = attentionModel({ layers: 2, rounds: true });
      const right = await verified(bytes, mode);
      assert.equal(right.passed, true, right.verdict);
      assert.match(right.verdict, /as in 'rounded_0' \(Round\)/);
      const [far] = mode === 'faithful' ? right.drift : right.structure;
      assert.ok(far!.maxRelative > right.tolerance, String(far!.maxRelative));
      assert.equal(right.beside.length, 2);
      for (const { maxRelative } of right.beside) assert.ok(maxRelative < 1e-5, String(maxRelative));

      const wrong = await verified(bytes, mode, {}, { bias: -2, biasMode: 'none' });
      assert.equal(wrong.passed, false, wrong.verdict);
      assert.match(wrong.verdict, /^verification failed/);
    });
  }

  it('measures nested sites of a model that rounds by how far it differs from itself', async () => {
    const bytes = inBranches(attentionModel({ layers: 2, headSize: 5, rounds: true }));
    const { passed, verdict, drift, tolerance, beside } = await verified(bytes, 'faithful');
    assert.equal(passed, true, verdict);
    assert.match(verdict, /told from itself/);
    assert.ok(drift[0]!.maxRelative > tolerance, String(drift[0]!.maxRelative));
    assert.deepEqual(beside, []);
    // One that does not round is held to the tolerance.
    const plain = await verified(inBranches(softmax), 'faithful', {}, { bias: -2 });
    assert.equal(plain.passed, false, plain.verdict);
  });

  it('proves a site whose keys lie on two axes of the scores by the same rewrite in faithful mode', async () => {
    const b = new ModelBuilder(18);
    for (const name of ['q', 'k', 'v']) b.input(name, FLOAT, [2, 3, 5, 8]);
    const scores = b.op('Einsum', ['q', 'k'], { equation: 'bijd,byzd->bijyz' });
    const total = b.op('ReduceLogSumExp', [scores, b.ints([-2, -1])], { keepdims: 1 });
    const weights = b.op('Exp', [b.op('Sub', [scores, total])]);
    b.op('Einsum', [weights, 'v'], { equation: 'bijyz,byzd->bijd' }, 'y');
    b.output('y');
    const { passed, verdict, notes, sites } = await verified(b.toBytes(), 'paper');
    assert.equal(passed, true, verdict);
    assert.equal(sites.length, 1);
    assert.match(notes.join(), /lie on several axes/);
  });

  it('finds mode, sites and parameters in a converted file', () => {
    const original = openModel(softmax);
    const made = convert(original, { mode: 'calibrated', parameters: () => fitted });
    const found = provenanceOf(original, openModel(made.toBytes()))!;
    assert.equal(found.mode, 'calibrated');
    assert.deepEqual(
      found.replaced.map(({ output }) => output),
      made.replaced.map(({ output }) => output),
    );
    const [parameters] = [...found.parameters.values()];
    assert.deepEqual(parameters!.headScale, fitted.headScale);
    assert.deepEqual(parameters!.headGain, fitted.headGain);
    assert.equal(provenanceOf(openModel(attentionModel({ layers: 1 })), openModel(made.toBytes())), null);
    assert.equal(provenanceOf(original, original), null);
  });
});
