/**
 * Real exporter outputs: a chosen part of the model zoo that lives beside this file, and all of it where ZOO_DIR (with
 * ZOO_INDEX for an index elsewhere) names it. Every site of a positive file is replaced and the converted model computes what
 * the original does; nothing is replaced in a negative file.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkModel } from '../../proving/check-model.js';
import { openZoo, type ZooEntry } from '../../proving/zoo.js';
import { convert, inspect, openModel, REASONS } from '../../converter/index.js';

const MODELS = fileURLToPath(new URL('./models', import.meta.url));

const modeOf = (entry: ZooEntry): 'fuse' | 'faithful' =>
  entry.sigmoid_sites > 0 && entry.softmax_sites === 0 ? 'fuse' : 'faithful';

describe('converter on exported models', () => {
  const zoo = openZoo(MODELS);

  for (const entry of zoo.entries.filter(({ polarity }) => polarity === 'positive')) {
    it(`replaces every site of ${entry.path} and keeps what it computes`, async () => {
      const bytes = zoo.bytes(entry);
      const outcome = await checkModel(bytes, zoo.feeds(entry, openModel(bytes)), { mode: modeOf(entry) });
      assert.equal(outcome.failure, null);
      assert.deepEqual(outcome.refused, []);
      assert.equal(outcome.replaced, entry.softmax_sites + entry.sigmoid_sites);
      assert.ok(
        outcome.error !== null && outcome.error <= (entry.dtype.includes('16') ? 5e-3 : 1e-4),
        `error ${outcome.error}`,
      );
    });
  }

  for (const entry of zoo.entries.filter(({ polarity }) => polarity.startsWith('negative'))) {
    it(`leaves ${entry.path} as it is`, () => {
      const bytes = zoo.bytes(entry);
      for (const mode of ['fuse', 'faithful', 'paper'] as const) {
        const conversion = convert(openModel(bytes), { mode });
        assert.deepEqual(conversion.replaced, []);
        assert.deepEqual(conversion.toBytes(), new Uint8Array(bytes));
      }
    });
  }
});

describe('converter on the whole zoo', function () {
  this.timeout(300_000);
  const folder = process.env['ZOO_DIR'];
  const index = process.env['ZOO_INDEX'] ?? (folder === undefined ? '' : join(folder, 'index.json'));

  before(function () {
    if (folder !== undefined && existsSync(index)) return;
    console.log('      skipped: ZOO_DIR does not name the folder of the model zoo and its index');
    this.skip();
  });

  it('finds every site of at least 99 % of the positive files and replaces nothing in the negative ones', () => {
    const zoo = openZoo(folder!, index);
    const missed: string[] = [];
    const wrong: string[] = [];
    let positives = 0;
    for (const entry of zoo.entries) {
      const { sites } = inspect(openModel(zoo.bytes(entry)));
      const found = sites.filter(({ replaceable }) => replaceable).length;
      for (const site of sites)
        if (site.reason !== null) assert.ok(site.reason in REASONS && site.reasonDetail !== '', entry.path);
      if (entry.polarity === 'positive') {
        positives += 1;
        if (found < entry.softmax_sites + entry.sigmoid_sites) missed.push(entry.path);
      } else if (entry.polarity.startsWith('negative') && found > 0) wrong.push(entry.path);
    }
    assert.deepEqual(wrong, []);
    assert.ok(
      positives > 0 && missed.length <= 0.01 * positives,
      `missed ${missed.length} of ${positives}: ${missed.join(', ')}`,
    );
  });
});
