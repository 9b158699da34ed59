/** `node stock-session.mjs MODEL FEEDS`: runs a model on stock onnxruntime-node and prints its outputs as JSON. */
import { readFileSync } from 'node:fs';
import { InferenceSession, Tensor } from 'onnxruntime-node';

const [model, feeds] = process.argv.slice(2);
const session = await InferenceSession.create(model, { intraOpNumThreads: 1, logSeverityLevel: 4 });
const inputs = JSON.parse(readFileSync(feeds, 'utf8')).map(({ name, type, dims, data }) => [
  name,
  new Tensor(type, type === 'bool' ? Uint8Array.from(data) : Float32Array.from(data), dims),
]);
const outputs = await session.run(Object.fromEntries(inputs));
process.stdout.write(
  JSON.stringify(Object.fromEntries(Object.entries(outputs).map(([name, { data }]) => [name, [...data]]))),
);
