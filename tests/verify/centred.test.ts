/** Centred scores leave softmax as it is, with and without causality, and are verified where sigmoid takes them. */
import assert from 'node:assert/strict';
import { convert, openModel, type SiteParameters } from '../../converter/index.js';
import { openRuntime } from '../../converter/verify/runtime.js';
import { verify } from '../../converter/verify/verify.js';
import { attentionModel } from '../cli/small-models.js';

describe('centred scores', function () {
  this.timeout(60_000);
  for (const causal of [false, true]) {
    it(`keep softmax in faithful mode${causal ? ', causal' : ''}`, async () => {
      const original = { model: openModel(attentionModel({ layers: 2, causal, sharpness: 3 })), folder: '.' };
      const parameters: SiteParameters = { centreScores: true, bias: 0, headBias: [-45, -50] };
      const made = convert(original.model, { mode: 'faithful', parameters: () => parameters });
      const converted = { model: openModel(made.toBytes()), folder: '.' };
      const opTypes = converted.model.graph.nodes.map(({ opType }) => opType);
      assert.ok(opTypes.includes(causal ? 'CumSum' : 'ReduceMean'), opTypes.join());
      const request = { original, converted, mode: 'faithful' as const, replaced: made.replaced };
      const { passed, drift } = await verify(request, await openRuntime());
      assert.ok(passed);
      assert.ok(drift[0]!.maxRelative < 1e-5, String(drift[0]!.maxRelative));
    });
  }

  it('are what the exchanged graph computes in calibrated mode', async () => {
    const original = { model: openModel(attentionModel({ layers: 2 })), folder: '.' };
    const parameters: SiteParameters = {
      centreScores: true,
      centreValues: true,
      biasMode: 'neg_log_total',
      headBias: [0.5, -0.25],
      headScale: [0.75, 1.5],
      headGain: [0.5, 1.25],
    };
    const made = convert(original.model, { mode: 'calibrated', parameters: () => parameters });
    const { passed, structure, verdict } = await verify(
      {
        original,
        converted: { model: openModel(made.toBytes()), folder: '.' },
        mode: 'calibrated',
        replaced: made.replaced,
        parametersOf: () => parameters,
      },
      await openRuntime(),
    );
    assert.ok(passed, verdict);
    assert.ok(structure[0]!.maxRelative < 1e-5, String(structure[0]!.maxRelative));
  });
});
