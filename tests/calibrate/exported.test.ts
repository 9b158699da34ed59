/**
 * Exported softmax models through the measuring modes: faithful stays within 1e-4 of the original's outputs (2e-3 in float16)
 * on the inputs it measured, and calibrated computes what the original with sigmoid in place of softmax does. A part of the
 * model zoo lies beside the converter's tests; all of it is tried where ZOO_DIR (and ZOO_INDEX) names it.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { convertMeasured } from '../../converter/measured.js';
import { openModel } from '../../converter/index.js';
import type { Mode } from '../../converter/conversion.js';
import type { SampleSource } from '../../converter/data/source.js';
import { openRuntime } from '../../converter/verify/runtime.js';
import { worst, type Verification } from '../../converter/verify/verification.js';
import { verify } from '../../converter/verify/verify.js';
import { openZoo, type Zoo, type ZooEntry } from '../../proving/zoo.js';

const MODELS = fileURLToPath(new URL('../converter/models', import.meta.url));

const usable = ({ polarity, softmax_sites, ort_runs }: ZooEntry): boolean =>
  polarity === 'positive' && softmax_sites > 0 && ort_runs;

async function checked(zoo: Zoo, entry: ZooEntry, mode: Mode): Promise<Verification> {
  const model = openModel(zoo.bytes(entry));
  const runs = zoo.feeds(entry, model);
  const source: SampleSource = {
    description: 'recorded inputs',
    async *[Symbol.asyncIterator]() {
      for (const feeds of runs) yield await Promise.resolve(feeds);
    },
  };
  const { conversion, plan } = await convertMeasured(model, { mode, source });
  assert.equal(conversion.replaced.length, entry.softmax_sites);
  return verify(
    {
      original: { model, folder: '.' },
      converted: { model: openModel(conversion.toBytes()), folder: '.' },
      mode,
      replaced: conversion.replaced,
      parametersOf: (site) => plan.parameters.get(site),
      source,
    },
    await openRuntime(),
  );
}

const tolerance = ({ dtype }: ZooEntry): number => (dtype.includes('16') ? 2e-3 : 1e-4);

describe('measuring modes on exported models', function () {
  this.timeout(60_000);
  const zoo = openZoo(MODELS);
  const entries = zoo.entries.filter(usable);

  for (const entry of entries) {
    it(`keep ${entry.path} faithful`, async () => {
      const far = worst((await checked(zoo, entry, 'faithful')).drift);
      assert.ok(far <= tolerance(entry), String(far));
    });
  }

  for (const entry of entries.filter((_, index) => index % 3 === 0)) {
    it(`calibrate ${entry.path}`, async () => {
      const { passed, verdict } = await checked(zoo, entry, 'calibrated');
      assert.ok(passed, verdict);
    });
  }
});

describe('faithful mode on the whole zoo', function () {
  this.timeout(1_200_000);
  const folder = process.env['ZOO_DIR'];
  const index = process.env['ZOO_INDEX'] ?? (folder === undefined ? '' : join(folder, 'index.json'));

  before(function () {
    if (folder !== undefined && existsSync(index)) return;
    console.log('      skipped: ZOO_DIR does not name the folder of the model zoo and its index');
    this.skip();
  });

  it('stays within the tolerance for every model that ONNX Runtime runs', async () => {
    const zoo = openZoo(folder!, index);
    const beyond: string[] = [];
    for (const entry of zoo.entries.filter(usable)) {
      const far = worst((await checked(zoo, entry, 'faithful')).drift);
      if (!(far <= tolerance(entry))) beyond.push(`${entry.path}: ${far}`);
    }
    assert.deepEqual(beyond, []);
  });
});
