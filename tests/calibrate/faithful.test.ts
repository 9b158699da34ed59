/** The bound of docs/calibration.md, and the biases that rest on it. */
import assert from 'node:assert/strict';
import { boundWarnings, measuredBias, type SiteStatistics } from '../../converter/calibrate/faithful.js';
import type { HeadStatistics } from '../../converter/calibrate/measure.js';
import { RandomNumbers } from '../../converter/data/random-numbers.js';

const statistics = (heads: Partial<HeadStatistics>[]): SiteStatistics => ({
  site: 'site',
  depth: 0,
  canCentre: true,
  heads: heads.map((head) => ({
    largestScore: 0,
    smallestRowPeak: 0,
    centred: { largestScore: 0, smallestRowPeak: 0 },
    softmaxNorm: 1,
    sigmoidNorm: 1,
    entropy: 1,
    saturation: 0,
    logSumExp: { mean: 0, deviation: 0 },
    ...head,
  })),
});

describe('faithful parameters', () => {
  it('keep every weight within e^(m + b) of softmax', () => {
    const random = new RandomNumbers(5);
    for (let trial = 0; trial < 300; trial++) {
      const scores = Array.from({ length: 1 + random.below(60) }, () => 12 * random.normal());
      const largest = Math.max(...scores);
      const bias = -largest - 12 * random.uniform();
      const exps = scores.map((score) => Math.exp(score - largest));
      const gates = scores.map((score) => 1 / (1 + Math.exp(-(score + bias))));
      const sums = [exps, gates].map((weights) => weights.reduce((a, b) => a + b)) as [number, number];
      const bound = Math.exp(largest + bias);
      scores.forEach((_, j) => {
        const softmax = exps[j]! / sums[0];
        const faithful = gates[j]! / sums[1];
        assert.ok(
          Math.abs(faithful - softmax) <= (bound + 1e-12) * softmax,
          `trial ${trial}, bound ${bound}`,
        );
      });
    }
  });

  it('put the bias a margin below the largest score of each head', () => {
    const { headBias, normalize, centreScores } = measuredBias(
      statistics([
        { largestScore: 5, smallestRowPeak: 1 },
        { largestScore: -60, smallestRowPeak: -70 },
      ]),
    );
    assert.equal(normalize, true);
    assert.equal(centreScores, false);
    assert.deepEqual(headBias, [-19, 46]);
  });

  it('centre the scores where the rows of a head lie too far apart for one bias', () => {
    const far = statistics([
      { largestScore: 50, smallestRowPeak: -35, centred: { largestScore: 40, smallestRowPeak: 2 } },
      { largestScore: 1, smallestRowPeak: 0, centred: { largestScore: 2, smallestRowPeak: 1 } },
    ]);
    const parameters = measuredBias(far);
    assert.equal(parameters.centreScores, true);
    assert.deepEqual(parameters.headBias, [-54, -16]);
    assert.deepEqual(boundWarnings(far, parameters), []);
    const withPast = measuredBias({ ...far, canCentre: false });
    assert.equal(withPast.centreScores, false);
    assert.equal(boundWarnings({ ...far, canCentre: false }, withPast).length, 1);
  });

  it('warn of scores above the bias and of rows far below it', () => {
    const far = statistics([{ largestScore: 35 }, { smallestRowPeak: -50 }, {}]);
    const warnings = boundWarnings(far, { bias: -40 });
    assert.equal(warnings.length, 2);
    assert.match(
      warnings[0]!,
      /site, head 0: rows whose largest scores go from 0\.0 to 35\.0 leave the window of bias -40\.0, -31\.0 to 30\.0/,
    );
    assert.match(warnings[1]!, /site, head 1: rows whose largest scores go from -50\.0 to 0\.0/);
  });
});
