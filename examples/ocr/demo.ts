/**
 * Converts a real text recogniser to sigmoid attention and lets the original and the converted models read the same lines.
 * Leaves the converted models and a page with all readings in examples/ocr/out.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import * as ort from 'onnxruntime-node';
import { convert, inspect, openModel, type Mode } from '../../converter/index.js';
import '../../op/node/index.js';
import { characterErrorRate } from './error-rate.js';
import { DEMO_LINES } from './lines.js';
import { writePage, type Contestant } from './page.js';
import { recognise, RECOGNISER_FILE } from './recognise.js';
import { recogniserInput, renderLine } from './render.js';

const ROUNDS = 7;
const out = fileURLToPath(new URL('out/', import.meta.url));

const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!;

function convertTo(mode: Mode): string {
  const model = openModel(readFileSync(RECOGNISER_FILE));
  const conversion = convert(model, { mode });
  const file = path.join(out, `recogniser-${mode}.onnx`);
  writeFileSync(file, conversion.toBytes());
  console.log(
    `  ${mode.padEnd(9)} ${conversion.replaced.length} replaced -> ${path.relative(process.cwd(), file)}`,
  );
  return file;
}

/** Every model reads every line; rounds are interleaved so that all meet the same noise. */
async function readAll(models: Record<string, string>): Promise<Contestant[]> {
  const entries = await Promise.all(
    Object.entries(models).map(async ([name, file]) => ({
      name,
      session: await ort.InferenceSession.create(file),
      readings: [] as string[],
      times: [] as number[],
    })),
  );
  const inputs = DEMO_LINES.map((line) => recogniserInput(renderLine(line)));
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [i, input] of inputs.entries()) {
      for (const entry of entries) {
        const start = performance.now();
        entry.readings[i] = await recognise(entry.session, input);
        if (round > 0) entry.times.push(performance.now() - start);
      }
    }
  }
  return entries.map(({ name, readings, times }) => ({
    name,
    readings,
    milliseconds: median(times),
    errorRate: characterErrorRate(readings.map((reading, i) => ({ reading, truth: DEMO_LINES[i]!.text }))),
  }));
}

mkdirSync(out, { recursive: true });

console.log(`Attention in ${path.basename(RECOGNISER_FILE)}:`);
const { sites, passedOver } = inspect(openModel(readFileSync(RECOGNISER_FILE)));
for (const site of sites) {
  const size = `${site.heads} heads of ${site.headSize}`;
  console.log(`  ${site.name}: ${site.kind}, ${size}, scale ${site.scale}, mask ${site.maskText}`);
}
for (const { node, opType, reason } of passedOver)
  console.log(`  ${node}: a ${opType}, left alone (${reason})`);

console.log('\nConverted:');
const contestants = await readAll({
  'original (softmax)': RECOGNISER_FILE,
  'faithful (normalised sigmoid)': convertTo('faithful'),
  'paper (sigmoid, b = -log n)': convertTo('paper'),
});

for (const { name, milliseconds, errorRate, readings } of contestants) {
  console.log(
    `\n${name}: ${milliseconds.toFixed(1)} ms a line, character error rate ${(100 * errorRate).toFixed(1)} %`,
  );
  for (const reading of readings) console.log(`  ${reading}`);
}

const page = path.join(out, 'index.html');
writePage(page, DEMO_LINES, contestants);
console.log(`\nPage with the pictures: ${path.relative(process.cwd(), page)}`);

const [original, faithful] = contestants;
const same = original!.readings.every((reading, i) => reading === faithful!.readings[i]);
console.log(
  same ? 'The faithful model reads what the original reads.' : 'The faithful model reads differently.',
);
process.exitCode = same ? 0 : 1;
