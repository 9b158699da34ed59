/** Model families that the zoo does not hold, as PyTorch exports them. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as ort from 'onnxruntime-node';
import { checkModel } from '../../../proving/check-model.js';
import { plausibleFeeds, type Sizes } from '../../../converter/data/plausible.js';
import { RandomNumbers } from '../../../converter/data/random-numbers.js';
import { isSampleType, type Feeds } from '../../../converter/data/tensor.js';
import { convert, inspect, openModel } from '../../../converter/index.js';
import { EXPORTED } from './exported.js';

const folder = join(import.meta.dirname, 'models');

/** Two choices of the open sizes; the second one hides the last tokens of the first sequence. */
const SIZES: readonly Sizes[] = [
  { batch: 2, length: 10, past: 4, image: 8 },
  { batch: 1, length: 7, past: 5, image: 6 },
];

async function feedsOf(bytes: Uint8Array): Promise<Feeds[]> {
  const session = await ort.InferenceSession.create(bytes, { logSeverityLevel: 4 });
  const inputs = session.inputMetadata.map((entry) => {
    assert.ok(entry.isTensor && isSampleType(entry.type));
    return { name: entry.name, type: entry.type, shape: [...entry.shape] };
  });
  await session.release();
  return SIZES.map((sizes, run) => {
    const feeds = plausibleFeeds(inputs, sizes, new RandomNumbers(run + 1));
    const mask = feeds['attention_mask'] ?? feeds['mask'];
    if (run > 0 && mask !== undefined && typeof mask.data[0] === 'bigint') {
      const last = mask.dims.at(-1)!;
      (mask.data as BigInt64Array).fill(0n, last - 2, last);
    }
    return feeds;
  });
}

describe('converter on exported families', () => {
  it('has an expectation for every file', () => {
    const files = readdirSync(folder).map((file) => file.replace(/\.onnx$/, ''));
    assert.deepEqual(files.sort(), EXPORTED.map(({ file }) => file).sort());
  });

  for (const { file, sites, mask, stays } of EXPORTED) {
    const verb = sites > 0 ? 'replaces attention in' : 'leaves';
    it(`${verb} ${file}`, async () => {
      const bytes = Uint8Array.from(readFileSync(join(folder, `${file}.onnx`)));
      const found = inspect(openModel(bytes));
      const refused = found.sites.flatMap(({ reason }) => reason ?? []);
      const reasons = [...refused, ...found.passedOver.map(({ reason }) => reason)];
      if (stays === undefined) assert.deepEqual(refused, []);
      else assert.ok(reasons.includes(stays), `${stays} is not among ${reasons.join(', ')}`);
      if (sites === 0) {
        assert.deepEqual(convert(openModel(bytes), { mode: 'faithful' }).replaced, []);
        return;
      }
      if (mask !== undefined) assert.equal(found.sites[0]!.maskText, mask);
      const mode = found.sites.every(({ kind }) => kind === 'sigmoid') ? 'fuse' : 'faithful';
      const outcome = await checkModel(bytes, await feedsOf(bytes), { mode });
      assert.equal(outcome.replaced, sites, outcome.refused.join('; '));
      assert.equal(outcome.failure, null);
      assert.ok(outcome.error! < 2e-5, `differs by ${outcome.error}`);
    });
  }
});
