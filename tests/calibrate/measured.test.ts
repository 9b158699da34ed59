/** The library's measured conversion guards its bias as the command line does, and chooses how many sites stay faithful. */
import assert from 'node:assert/strict';
import { convert, openModel } from '../../converter/index.js';
import { convertMeasured } from '../../converter/measured.js';
import { RandomNumbers } from '../../converter/data/random-numbers.js';
import type { SampleSource } from '../../converter/data/source.js';
import { openRuntime } from '../../converter/verify/runtime.js';
import { DistanceMeter } from '../../converter/verify/compare.js';
import { attentionModel, nestedModel } from '../cli/small-models.js';

const WIDTH = 8;

function source(runs: number, seed: number, size = 1): SampleSource {
  return {
    description: `${runs} runs`,
    async *[Symbol.asyncIterator]() {
      const random = new RandomNumbers(seed);
      for (let run = 0; run < runs; run++) {
        const data = Float32Array.from({ length: 2 * 16 * WIDTH }, () => size * random.normal());
        yield await Promise.resolve({ x: { type: 'float32', dims: [2, 16, WIDTH], data } });
      }
    },
  };
}

async function distance(a: Uint8Array, b: Uint8Array, samples: SampleSource, output = 'y'): Promise<number> {
  const runtime = await openRuntime();
  const [first, second] = [await runtime.open(a), await runtime.open(b)];
  const meter = new DistanceMeter(output);
  for await (const feeds of samples)
    meter.add((await first.run(feeds))[output]!, (await second.run(feeds))[output]!);
  await first.close();
  await second.close();
  return meter.result().relative;
}

describe('measured conversion', function () {
  this.timeout(60_000);

  it('keeps softmax on inputs twice as large as those it measured, four times in scores, without data', async () => {
    const bytes = attentionModel({ sharpness: 3 });
    const model = openModel(bytes);
    const inputs = source(4, 5, 2);
    const { conversion } = await convertMeasured(model, { mode: 'faithful' });
    const guarded = await distance(bytes, conversion.toBytes(), inputs);
    const bare = await distance(bytes, convert(model, { mode: 'faithful' }).toBytes(), inputs);
    assert.ok(guarded < 1e-5, `${guarded} ${bare}`);
    assert.ok(bare > 100 * guarded, `${guarded} ${bare}`);
  });

  it('keeps the fewest sites that stay within a distance', async () => {
    const bytes = attentionModel({ layers: 3, sharpness: 2, causal: true });
    const model = openModel(bytes);
    const samples = source(8, 1);
    const free = await convertMeasured(model, { mode: 'calibrated', source: samples, keep: 0 });
    const far = await distance(bytes, free.conversion.toBytes(), samples);
    const bound = far / 2;
    const { conversion, plan } = await convertMeasured(model, {
      mode: 'calibrated',
      source: samples,
      keep: 'auto',
      within: { amount: bound, relative: false },
    });
    const { choice, sites } = plan.calibration!;
    assert.ok(choice!.keep > 0 && choice!.keep <= 3);
    assert.equal(sites.filter(({ kept }) => kept).length, choice!.keep);
    assert.deepEqual(
      choice!.trade.map(({ keep }) => keep),
      Array.from({ length: choice!.keep + 1 }, (_, keep) => keep),
    );
    assert.ok(choice!.trade.slice(0, -1).every(({ value }) => value > bound));
    const own = await distance(bytes, conversion.toBytes(), samples);
    assert.ok(own <= bound * 1.0001, `${own} ${bound}`);
    assert.ok(Math.abs(choice!.trade[0]!.value - far) < 1e-6);
  });

  it('takes a metric as the judge, in its direction', async () => {
    const model = openModel(attentionModel({ layers: 2 }));
    let scored = 0;
    const metric = {
      name: 'score',
      better: 'higher' as const,
      score: (): Promise<number> => Promise.resolve(10 + scored++),
    };
    const { plan } = await convertMeasured(model, {
      mode: 'calibrated',
      source: source(4, 2),
      keep: 'auto',
      within: { amount: 0, relative: true },
      metric,
    });
    assert.equal(plan.calibration!.choice!.original, 10);
    assert.equal(plan.calibration!.choice!.keep, 0);
  });

  it('leaves sites in nested graphs faithful and says so', async () => {
    const bytes = nestedModel({ layers: 2 });
    const { conversion, plan } = await convertMeasured(openModel(bytes), {
      mode: 'calibrated',
      source: source(4, 2),
    });
    assert.equal(conversion.replaced.length, 2);
    assert.deepEqual(plan.calibration!.sites, []);
    assert.equal(plan.calibration!.hidden.length, 2);
    assert.ok(plan.notes.some((note) => /lies in a nested graph.*stays faithful/.test(note)));
    const own = await distance(bytes, conversion.toBytes(), source(4, 3), 'result');
    assert.ok(own < 1e-5, String(own));
  });

  it('needs a bound where a metric judges', async () => {
    const model = openModel(attentionModel());
    const metric = { name: 'score', better: null, score: (): Promise<number> => Promise.resolve(1) };
    await assert.rejects(
      convertMeasured(model, { mode: 'calibrated', source: source(2, 2), keep: 'auto', metric }),
      /needs a bound/,
    );
  });
});
