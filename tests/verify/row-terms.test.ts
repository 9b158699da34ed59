/** Row terms and shifts: the converted graph and the original with its activation exchanged, two derivations, agree. */
import assert from 'node:assert/strict';
import { convert, openModel, type SiteParameters } from '../../converter/index.js';
import { provenanceOf } from '../../converter/verify/provenance.js';
import { openRuntime } from '../../converter/verify/runtime.js';
import { verify } from '../../converter/verify/verify.js';
import { attentionModel } from '../cli/small-models.js';

const SHIFTS: SiteParameters = {
  biasMode: 'neg_log_total',
  headBias: [0.5, -0.25],
  headScale: [0.75, 1.5],
  headGain: [0.5, 1.25],
  rowQuery: [
    [0.25, -0.5, 0.5, 0.125],
    [-0.5, 0.25, 0.125, 0.75],
  ],
  valueShift: [
    [1, 2, 3, 4],
    [-1, 0.5, 2, 1],
  ],
  outputShift: [
    [0.5, 0, -1, 2],
    [1, 1, -2, 0],
  ],
};
const MEAN = [
  [-0.75, 0, 0],
  [0.25, 0, 0],
];
const SPREAD = [
  [-0.75, 0.5, -0.25],
  [0.25, -0.25, 0.625],
];

const cases: readonly [string, boolean, SiteParameters][] = [
  ['constants on keys, values and output', false, SHIFTS],
  ['constants, causal', true, SHIFTS],
  ['the mean of scores', false, { ...SHIFTS, rowMoments: MEAN }],
  ['the running mean of scores, causal', true, { ...SHIFTS, rowMoments: MEAN }],
  [
    'variance and deviation of scores, mean of values',
    false,
    { ...SHIFTS, rowMoments: SPREAD, centreValues: true },
  ],
];

describe('row terms', function () {
  this.timeout(60_000);
  for (const [name, causal, parameters] of cases) {
    it(`are what the exchanged graph computes: ${name}`, async () => {
      const original = { model: openModel(attentionModel({ layers: 2, causal })), folder: '.' };
      const made = convert(original.model, { mode: 'calibrated', parameters: () => parameters });
      const converted = { model: openModel(made.toBytes()), folder: '.' };
      const request = { original, converted, mode: 'calibrated' as const, replaced: made.replaced };
      const { passed, verdict, structure, sites, notes } = await verify(
        { ...request, parametersOf: () => parameters },
        await openRuntime(),
      );
      assert.ok(passed, verdict);
      assert.deepEqual(notes, []);
      assert.ok(structure[0]!.maxRelative < 1e-5, String(structure[0]!.maxRelative));
      assert.ok(sites.every((site) => site.structure!.maxRelative < 1e-5));
    });
  }

  it('are read back from a converted file', () => {
    const original = openModel(attentionModel());
    const parameters = { ...SHIFTS, rowMoments: SPREAD, centreValues: true };
    const made = convert(original, { mode: 'calibrated', parameters: () => parameters });
    const { parameters: read } = provenanceOf(original, openModel(made.toBytes()))!;
    const [own] = [...read.values()];
    assert.deepEqual(own, { ...parameters, bias: 0, normalize: false });
  });

  it('stay out of sigmoid sites', () => {
    const original = openModel(attentionModel({ activation: 'Sigmoid' }));
    const plain = convert(original, { mode: 'fuse' });
    const asked = convert(original, { mode: 'fuse', parameters: () => SHIFTS });
    assert.deepEqual(asked.replaced[0]!.added, plain.replaced[0]!.added);
  });
});
