/**
 * `npm run fuzz -- TARGET [--runs N] [--seconds S] [--seed N] [--keep]`
 *
 * Fuzzes one target (a file of tests/fuzz/targets). The corpus in tests/fuzz/corpus/TARGET is where it starts; `--keep`
 * adds what reached something new to it. Minimised finds go to tests/fuzz/finds/TARGET, and the exit code is 1.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Fuzzer } from './fuzzer.js';
import { instrument } from './instrument.js';
import { Watchdog } from './watchdog.js';

const here = import.meta.dirname;
const names = readdirSync(join(here, 'targets')).map((file) => file.replace(/\.ts$/, ''));

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    runs: { type: 'string', default: '1000000' },
    seconds: { type: 'string', default: '600' },
    seed: { type: 'string', default: '1' },
    corpus: { type: 'string' },
    keep: { type: 'boolean', default: false },
  },
});

const name = positionals[0] ?? '';
if (!names.includes(name)) {
  console.error(`fuzz: unknown target '${name}', must be one of ${names.join(', ')}.`);
  process.exit(1);
}
const { target, blocks } = await instrument(
  join(here, 'targets', `${name}.ts`),
  join(here, '../../.cache/fuzz'),
);
const watchdog = new Watchdog(join(here, 'finds', name, 'endless'), target.maxLength, 6000);
const fuzzer = new Fuzzer(target, globalThis.__blocks, Number(values.seed), (input) => watchdog.watch(input));

const folder = values.corpus ?? join(here, 'corpus', name);
const files = existsSync(folder) ? readdirSync(folder).sort() : [];
const started = files.map((file) => Uint8Array.from(readFileSync(join(folder, file))));
// The shortest first: of inputs that reach the same, it is the one that is kept.
for (const bytes of started.sort((a, b) => a.length - b.length)) {
  if (bytes.length <= target.maxLength) await fuzzer.add(bytes);
}
if (fuzzer.corpus.length === 0) await fuzzer.add(new Uint8Array(0));
const given = fuzzer.corpus.length;

const runs = Number(values.runs);
const deadline = performance.now() + 1000 * Number(values.seconds);
const begin = performance.now();
let nextLine = begin + 10_000;
while (fuzzer.executions < runs && performance.now() < deadline) {
  for (let i = 0; i < 200; i++) await fuzzer.step();
  if (performance.now() > nextLine) {
    nextLine += 10_000;
    const perSecond = Math.round((1000 * fuzzer.executions) / (performance.now() - begin));
    console.log(
      `${fuzzer.executions} runs (${perSecond}/s), corpus ${fuzzer.corpus.length}, ` +
        `${fuzzer.reached} of ${blocks} blocks, ${fuzzer.finds.length} finds`,
    );
  }
}

await watchdog.stop();

const nameOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex').slice(0, 16);
if (values.keep) {
  mkdirSync(folder, { recursive: true });
  for (const bytes of fuzzer.corpus.slice(given)) writeFileSync(join(folder, nameOf(bytes)), bytes);
}
for (const find of fuzzer.finds) {
  const bytes = await fuzzer.minimise(find);
  const finds = join(here, 'finds', name);
  mkdirSync(finds, { recursive: true });
  writeFileSync(join(finds, nameOf(bytes)), bytes);
  console.log(`FIND ${name}/${nameOf(bytes)} (${bytes.length} bytes): ${find.what.split('\n')[0]}`);
}
console.log(
  `${name}: ${fuzzer.executions} runs, corpus ${given} -> ${fuzzer.corpus.length}, ` +
    `${fuzzer.reached} of ${blocks} blocks, ${fuzzer.finds.length} finds`,
);
process.exitCode = fuzzer.finds.length === 0 ? 0 : 1;
