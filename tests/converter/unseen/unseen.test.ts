/** Spellings that the model zoo does not hold: every one is replaced and keeps what it computes, or left for the right reason. */
import assert from 'node:assert/strict';
import { checkModel } from '../../../proving/check-model.js';
import { convert, inspect, openModel } from '../../../converter/index.js';
import { Random } from '../generator/random.js';
import { ModelBuilder } from '../../../proving/model-builder.js';
import type { UnseenCase } from './case.js';
import { EXPORTERS } from './exporters.js';
import { HARD } from './hard.js';

function bytesOf({ opset = 18, build, irVersion }: UnseenCase): Uint8Array {
  const b = new ModelBuilder(opset);
  build(b);
  return b.toBytes(irVersion === undefined ? {} : { irVersion });
}

for (const [group, cases] of Object.entries({
  'spellings of other exporters': EXPORTERS,
  'hard cases': HARD,
})) {
  describe(`converter on ${group}`, () => {
    for (const entry of cases) {
      it(entry.title, async () => {
        const bytes = bytesOf(entry);
        const { sites, passedOver } = inspect(openModel(bytes));
        const found = [
          ...sites.flatMap(({ reason }) => reason ?? []),
          ...passedOver.map(({ reason }) => reason),
        ];
        for (const reason of entry.reasons ?? [])
          assert.ok(found.includes(reason), `${reason} is not among ${found.join(', ')}`);
        const mode = sites.every(({ kind }) => kind === 'sigmoid') ? 'fuse' : 'faithful';
        const feeds = [1, 2].map((seed) => entry.feeds(new Random(seed)));
        if ((entry.sites ?? 0) === 0) {
          assert.deepEqual(convert(openModel(bytes), { mode: 'faithful' }).replaced, []);
          return;
        }
        const outcome = await checkModel(bytes, feeds, { mode });
        assert.equal(outcome.replaced, entry.sites, outcome.refused.join('; ') || found.join(', '));
        assert.equal(outcome.failure, null);
        const half = Object.values(feeds[0]!).some(({ type }) => type === 'float16');
        assert.ok(outcome.error! < (half ? 5e-3 : 2e-5), `differs by ${outcome.error}`);
        if (entry.mask !== undefined) assert.equal(sites[0]!.maskText, entry.mask);
      });
    }
  });
}
