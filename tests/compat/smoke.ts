/**
 * One program for every cell of the matrix: `smoke.mjs MODELS.json`. For each model it prints one line of JSON: how the
 * session ran (class of its handler, first numbers of Y), or the error; last the versions.
 */
import { readFileSync } from 'node:fs';
import * as ort from 'onnxruntime-node';
import '../../op/node/index.js';

interface Case {
  readonly name: string;
  /** Base64. */
  readonly model: string;
  readonly feeds: Readonly<Record<string, { readonly dims: number[]; readonly data: number[] }>>;
}

const cases = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as Case[];
for (const { name, model, feeds } of cases) {
  try {
    const session = await ort.InferenceSession.create(Buffer.from(model, 'base64'), { logSeverityLevel: 4 });
    const inputs = Object.entries(feeds).map(([input, { dims, data }]) => [
      input,
      new ort.Tensor('float32', Float32Array.from(data), dims),
    ]);
    const { Y } = await session.run(Object.fromEntries(inputs) as ort.InferenceSession.FeedsType);
    const { handler } = session as unknown as { handler: object };
    console.log(
      JSON.stringify({ name, handler: handler.constructor.name, Y: [...(Y!.data as Float32Array)] }),
    );
    await session.release();
  } catch (error) {
    console.log(JSON.stringify({ name, error: (error as Error).message.split('\n')[0] }));
  }
}
console.log(JSON.stringify({ name: 'versions', node: process.version, ort: ort.env.versions.node }));
