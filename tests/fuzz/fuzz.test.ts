/** Every input that fuzzing has kept, every find, and a short run from a fixed seed, for each target. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Fuzzer, judge } from './fuzzer.js';
import { instrument } from './instrument.js';

const here = import.meta.dirname;

/** Mutated inputs of the short run: about a second a target. */
const RUNS: Readonly<Record<string, number>> = {
  'model-reader': 1500,
  'model-imports': 1500,
  'sample-data': 1500,
  converter: 60,
};

function inputs(kind: 'corpus' | 'finds', name: string): { file: string; bytes: Uint8Array }[] {
  const folder = join(here, kind, name);
  if (!existsSync(folder)) return [];
  return readdirSync(folder).map((file) => ({
    file,
    bytes: Uint8Array.from(readFileSync(join(folder, file))),
  }));
}

describe('hostile bytes', function () {
  this.timeout(120_000);

  for (const [name, runs] of Object.entries(RUNS)) {
    it(`give ${name} nothing but clear errors`, async () => {
      const compiled = join(here, '../../.cache/fuzz');
      const { target } = await instrument(join(here, 'targets', `${name}.ts`), compiled);
      for (const { file, bytes } of inputs('finds', name)) {
        assert.equal(await judge(target, bytes), null, `finds/${name}/${file}`);
      }
      const fuzzer = new Fuzzer(target, globalThis.__blocks, 1);
      const corpus = inputs('corpus', name);
      assert.notEqual(corpus.length, 0, `tests/fuzz/corpus/${name} is empty`);
      for (const { bytes } of corpus.sort((a, b) => a.bytes.length - b.bytes.length)) await fuzzer.add(bytes);
      while (fuzzer.executions < corpus.length + runs) await fuzzer.step();
      assert.deepEqual(
        fuzzer.finds.map(({ what }) => what),
        [],
      );
    });
  }
});
