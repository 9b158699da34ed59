/** Calibration of whole models: nearer to softmax than b = -log n, the same every time, also at lengths it never saw. */
import assert from 'node:assert/strict';
import { planParameters, type Plan } from '../../converter/calibrate/plan.js';
import { convert, openModel } from '../../converter/index.js';
import { RandomNumbers } from '../../converter/data/random-numbers.js';
import type { SampleSource } from '../../converter/data/source.js';
import type { Feeds } from '../../converter/data/tensor.js';
import { DistanceMeter } from '../../converter/verify/compare.js';
import { openRuntime, type Runtime } from '../../converter/verify/runtime.js';
import { attentionModel } from '../cli/small-models.js';

const WIDTH = 8;

function feeds(length: number, random: RandomNumbers): Feeds {
  const data = Float32Array.from({ length: 2 * length * WIDTH }, () => random.normal());
  return { x: { type: 'float32', dims: [2, length, WIDTH], data } };
}

/** Runs of changing length; counts how often it is walked and how many runs are alive. */
function source(lengths: readonly number[], seed: number): SampleSource {
  return {
    description: 'made-up runs',
    async *[Symbol.asyncIterator]() {
      const random = new RandomNumbers(seed);
      for (const length of lengths) yield feeds(length, random);
    },
  };
}

describe('calibration', function () {
  this.timeout(60_000);
  let runtime: Runtime;
  before(async () => {
    runtime = await openRuntime();
  });

  const plan = (bytes: Uint8Array, samples: SampleSource, keep = 0): Promise<Plan> =>
    planParameters({
      placed: { model: openModel(bytes), folder: '.' },
      mode: 'calibrated',
      runtime: () => Promise.resolve(runtime),
      source: samples,
      keep,
      seed: 1,
    });

  /** Relative distance of the outputs from the softmax model, on inputs that nothing was fitted to. */
  async function drift(
    bytes: Uint8Array,
    converted: Uint8Array,
    lengths: readonly number[],
  ): Promise<number> {
    const [a, b] = [await runtime.open(bytes), await runtime.open(converted)];
    const meter = new DistanceMeter('y');
    for await (const run of source(lengths, 77))
      meter.add((await a.run(run))['y']!, (await b.run(run))['y']!);
    await a.close();
    await b.close();
    return meter.result().relative;
  }

  const calibrated = (bytes: Uint8Array, { parameters }: Plan): Uint8Array =>
    convert(openModel(bytes), {
      mode: 'calibrated',
      parameters: ({ name }) => parameters.get(name),
    }).toBytes();
  const paper = (bytes: Uint8Array): Uint8Array => convert(openModel(bytes), { mode: 'paper' }).toBytes();

  for (const causal of [false, true]) {
    it(`comes nearer than b = -log n on held-back inputs${causal ? ', causal' : ''}`, async () => {
      const bytes = attentionModel({ layers: 3, sharpness: 1.5, causal });
      const fitted = await plan(bytes, source([12, 20, 16, 24], 1));
      assert.equal(fitted.calibration!.sites.length, 3);
      const [own, start] = [
        await drift(bytes, calibrated(bytes, fitted), [14, 18, 22]),
        await drift(bytes, paper(bytes), [14, 18, 22]),
      ];
      assert.ok(own < 0.7 * start, `${own} ${start}`);
    });

    it(`follows the length to values that fitting never saw${causal ? ', causal' : ''}`, async () => {
      const bytes = attentionModel({ layers: 2, causal });
      const fitted = await plan(bytes, source([16, 12, 20, 16, 18, 14], 1));
      const frozen = new Map(
        [...fitted.parameters].map(([site, parameters]) => {
          const headBias = parameters.headBias!.map((bias) => bias - Math.log(16));
          return [site, { ...parameters, biasMode: 'none' as const, headBias }];
        }),
      );
      for (const length of [6, 60, 240]) {
        const [own, fixed] = [
          await drift(bytes, calibrated(bytes, fitted), [length, length]),
          await drift(bytes, calibrated(bytes, { ...fitted, parameters: frozen }), [length, length]),
        ];
        const start = await drift(bytes, paper(bytes), [length, length]);
        const found = `length ${length}: ${own}, bias fixed ${fixed}, -log n ${start}`;
        assert.ok(own < fixed / 2, found);
        assert.ok(own < (length < 16 ? start : start / 2), found);
      }
    });
  }

  it('is the same every time', async () => {
    const bytes = attentionModel({ layers: 2 });
    const runs = [await plan(bytes, source([16, 300], 1)), await plan(bytes, source([16, 300], 1))];
    assert.deepEqual(runs[0]!.parameters, runs[1]!.parameters);
  });

  it('keeps the worst site faithful', async () => {
    const bytes = attentionModel({ layers: 3, sharpness: 2 });
    const samples = source([12, 20, 16, 24], 1);
    const [none, one] = [await plan(bytes, samples), await plan(bytes, samples, 1)];
    const kept = one.calibration!.sites.filter((site) => site.kept);
    assert.equal(kept.length, 1);
    assert.equal(one.parameters.get(kept[0]!.site)!.normalize, true);
    const distances = [
      await drift(bytes, calibrated(bytes, none), [18]),
      await drift(bytes, calibrated(bytes, one), [18]),
      await drift(bytes, calibrated(bytes, await plan(bytes, samples, 3)), [18]),
    ];
    assert.ok(distances[1]! < distances[0]!, distances.join(' '));
    assert.ok(distances[2]! < 1e-5, distances.join(' '));
  });

  it('meets scores far from 0 in faithful mode with samples', async () => {
    const bytes = attentionModel({ layers: 1, sharpness: 14 });
    const { parameters, statistics } = await planParameters({
      placed: { model: openModel(bytes), folder: '.' },
      mode: 'faithful',
      runtime: () => Promise.resolve(runtime),
      source: source([12, 20], 77),
      seed: 1,
    });
    assert.ok(statistics[0]!.heads.some(({ largestScore }) => largestScore > 35));
    const converted = convert(openModel(bytes), {
      mode: 'faithful',
      parameters: ({ name }) => parameters.get(name),
    }).toBytes();
    const own = await drift(bytes, converted, [12, 20]);
    const plain = await drift(bytes, convert(openModel(bytes), { mode: 'faithful' }).toBytes(), [12, 20]);
    assert.ok(own < 1e-4, `${own} ${plain}`);
    assert.ok(own < plain / 10, `${own} ${plain}`);
  });
});
