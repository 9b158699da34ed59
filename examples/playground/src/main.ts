/** The page: choose a model, see its attention, convert it, run both, and let a character model write. */

import * as ort from 'onnxruntime-web/webgpu';
import wasmUrl from 'onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url';
import {
  convert,
  inspect,
  MemorySource,
  type Mode,
  type Model,
  openModel,
} from '../../../converter/index.js';
import { install } from '../../../op/web/index.js';
import sigmoidUrl from '../models/characters-sigmoid.onnx?url';
import softmaxUrl from '../models/characters-softmax.onnx?url';
import { compare, createPair, type Pair, type Which } from './comparison.js';
import { freeDimensions, usualSize } from './inputs.js';
import { comparisonReport, element, sitesTable } from './report.js';
import { isCharacterModel, write } from './writing.js';

const SAMPLES: Readonly<Record<string, string>> = {
  'characters-softmax': softmaxUrl,
  'characters-sigmoid': sigmoidUrl,
};
const PROMPT = 'def read_header(self, name):\n    """';
const CHARACTERS_TO_WRITE = 160;

/** The model on the page. */
interface Chosen {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly model: Model;
  readonly externalData: { path: string; data: Uint8Array }[];
}

let chosen: Chosen | undefined;
let converted: Uint8Array | undefined;
let pair: Pair | undefined;
let device: GPUDevice | undefined;
let stopWriting = false;

const find = <E extends HTMLElement>(id: string): E => document.getElementById(id) as E;
const drop = find('drop');
const file = find<HTMLInputElement>('file');
const modes = find<HTMLFieldSetElement>('modes');
const convertButton = find<HTMLButtonElement>('convert');
const runButton = find<HTMLButtonElement>('run');
const writeButton = find<HTMLButtonElement>('write');
const stopButton = find<HTMLButtonElement>('stop');
const download = find<HTMLAnchorElement>('download');

function tell(id: string, text: string, isError = false): void {
  const line = find(id);
  line.textContent = text;
  line.classList.toggle('error', isError);
}

/** Runs what a button starts; what goes wrong is told beside it, and no other button works meanwhile. */
async function busy(statusId: string, work: () => Promise<void>): Promise<void> {
  const buttons = [...document.querySelectorAll<HTMLButtonElement>('button:not(#stop)')];
  const wasDisabled = new Map(buttons.map((button) => [button, button.disabled]));
  for (const button of buttons) button.disabled = true;
  try {
    await work();
  } catch (error) {
    tell(statusId, error instanceof Error ? error.message : String(error), true);
  } finally {
    for (const button of buttons) button.disabled = wasDisabled.get(button)!;
    convertButton.disabled = chosen === undefined;
    runButton.disabled = converted === undefined;
  }
}

/** Lets the browser draw before work that holds the page. */
const drawn = (): Promise<void> => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));

async function forgetConversion(): Promise<void> {
  await pair?.release();
  pair = undefined;
  converted = undefined;
  download.hidden = true;
  find('results').hidden = true;
  find('text-section').hidden = true;
  find('sizes').replaceChildren();
  for (const id of ['convert-status', 'run-status', 'write-status']) tell(id, '');
}

async function choose(name: string, bytes: Uint8Array, others: readonly File[] = []): Promise<void> {
  await forgetConversion();
  chosen = undefined;
  modes.disabled = true;
  find('sites').hidden = true;
  tell('model-status', `Reading ${name}…`);
  await drawn();
  const externalData = await Promise.all(
    others.map(async (other) => ({ path: other.name, data: new Uint8Array(await other.arrayBuffer()) })),
  );
  const model = openModel(bytes, (location) => {
    const found = externalData.find(({ path }) => path === location.split('/').at(-1));
    return found === undefined ? null : new MemorySource(found.data);
  });
  const inspection = inspect(model);
  find('sites').replaceChildren(sitesTable(inspection));
  find('sites').hidden = inspection.sites.length === 0;
  chosen = { name, bytes, model, externalData };
  modes.disabled = false;
  const usable = inspection.sites.filter(({ replaceable }) => replaceable);
  const onlySigmoid = usable.length > 0 && usable.every(({ kind }) => kind === 'sigmoid');
  find<HTMLInputElement>('modes').querySelector<HTMLInputElement>(
    `[value=${onlySigmoid ? 'fuse' : 'faithful'}]`,
  )!.checked = true;
  const megabytes = (bytes.length / 2 ** 20).toFixed(1);
  tell(
    'model-status',
    `${name}: ${inspection.nodeCount} nodes, ${megabytes} MB; ${usable.length} of ${inspection.sites.length} attention sites can be converted.`,
  );
}

async function chooseFiles(files: readonly File[]): Promise<void> {
  if (files.length === 0) return;
  const model =
    files.find(({ name }) => name.endsWith('.onnx')) ?? (files.length === 1 ? files[0] : undefined);
  if (model === undefined) throw new Error('none of these files is called .onnx');
  await choose(
    model.name,
    new Uint8Array(await model.arrayBuffer()),
    files.filter((other) => other !== model),
  );
}

async function convertChosen(): Promise<void> {
  const { model, name, externalData } = chosen!;
  await forgetConversion();
  tell('convert-status', 'Converting…');
  await drawn();
  const mode = document.querySelector<HTMLInputElement>('[name=mode]:checked')!.value as Mode;
  const start = performance.now();
  const result = convert(model, { mode });
  const bytes = result.toBytes();
  const took = (performance.now() - start).toFixed(0);
  if (result.replaced.length === 0)
    throw new Error(
      `Mode ${mode} finds nothing to convert here${result.refused[0] ? `: ${result.refused[0].detail}` : ''}.`,
    );
  converted = bytes;
  URL.revokeObjectURL(download.href);
  download.href = URL.createObjectURL(new Blob([bytes as Uint8Array<ArrayBuffer>]));
  download.download = name.replace(/(\.onnx)?$/, `.${mode}.onnx`);
  download.hidden = false;
  tell(
    'convert-status',
    `${result.replaced.length} sites replaced, ${result.refused.length} left, in ${took} ms. Creating both sessions…`,
  );
  await drawn();
  const options: ort.InferenceSession.SessionOptions = {
    executionProviders: [device === undefined ? 'wasm' : { name: 'webgpu', device }],
    ...(externalData.length > 0 ? { externalData } : {}),
  };
  pair = await createPair(ort, { original: chosen!.bytes, converted: bytes }, options, device);
  tell(
    'convert-status',
    `${result.replaced.length} sites replaced, ${result.refused.length} left, in ${took} ms.`,
  );
  find('sizes').replaceChildren(...freeDimensions(pair.sessions.original.inputMetadata).map(sizeField));
  const canWrite = isCharacterModel(pair.sessions.original);
  find('text-section').hidden = !canWrite;
}

function sizeField(dimension: string): HTMLElement {
  const input = element('input', {
    type: 'number',
    min: '0',
    max: '65536',
    value: String(usualSize(dimension)),
    'data-dimension': dimension,
  });
  return element('label', {}, dimension, input);
}

async function runBoth(): Promise<void> {
  const fields = [...document.querySelectorAll<HTMLInputElement>('[data-dimension]')];
  const sizes = new Map(fields.map((field) => [field.dataset['dimension']!, field.valueAsNumber]));
  for (const [dimension, size] of sizes)
    if (!Number.isInteger(size) || size < 0)
      throw new Error(`${dimension} must be a whole number, 0 or more`);
  const result = await compare(ort, pair!, sizes, (what) => tell('run-status', what));
  find('results').replaceChildren(comparisonReport(result));
  find('results').hidden = false;
  tell('run-status', 'Done.');
}

async function writeText(): Promise<void> {
  stopWriting = false;
  stopButton.disabled = false;
  const beginning = find<HTMLTextAreaElement>('prompt').value;
  const writers = (['original', 'converted'] as const).map((which: Which) => {
    const place = find(`${which}-text`);
    const text = new Text();
    place.replaceChildren(element('span', { class: 'prompt' }, beginning), text);
    return {
      which,
      place,
      text,
      source: write(ort, pair!.sessions[which], beginning, CHARACTERS_TO_WRITE),
      milliseconds: 0,
      written: 0,
    };
  });
  try {
    for (let count = 0; count < CHARACTERS_TO_WRITE && !stopWriting; count++) {
      for (const writer of writers) {
        const start = performance.now();
        const { value } = await writer.source.next();
        writer.milliseconds += performance.now() - start;
        writer.text.data += String(value ?? '');
        writer.place.scrollTop = writer.place.scrollHeight;
        const speed = (1000 * ++writer.written) / writer.milliseconds;
        find(`${writer.which}-speed`).textContent =
          `${speed.toFixed(speed < 10 ? 1 : 0)} characters a second`;
      }
      tell(
        'write-status',
        count % 20 === 0 ? `Writing, ${count} characters so far…` : find('write-status').textContent,
      );
    }
    const [a, b] = writers.map(({ text }) => text.data);
    tell('write-status', a === b ? 'Both wrote the same text.' : 'The texts part where the models differ.');
  } finally {
    stopButton.disabled = true;
  }
}

async function lookForGpu(): Promise<void> {
  ort.env.wasm.wasmPaths = { wasm: wasmUrl };
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = 'error';
  install(ort);
  const { gpu } = navigator as { gpu?: GPU };
  const adapter = (await gpu?.requestAdapter()) ?? null;
  if (adapter === null) {
    tell('device', 'No WebGPU: both models run on WebAssembly');
    return;
  }
  const { description, vendor, architecture } = adapter.info;
  const requiredFeatures = (['shader-f16', 'subgroups', 'timestamp-query'] as const).filter((feature) =>
    adapter.features.has(feature),
  );
  const { maxBufferSize, maxStorageBufferBindingSize, maxComputeWorkgroupStorageSize } = adapter.limits;
  device = await adapter.requestDevice({
    requiredFeatures,
    requiredLimits: { maxBufferSize, maxStorageBufferBindingSize, maxComputeWorkgroupStorageSize },
  });
  tell('device', `GPU: ${description || [vendor, architecture].filter(Boolean).join(' ') || 'available'}`);
}

function connect(): void {
  find<HTMLTextAreaElement>('prompt').value = PROMPT;
  file.addEventListener(
    'change',
    () => void busy('model-status', () => chooseFiles([...(file.files ?? [])])),
  );
  drop.addEventListener('dragover', (event) => {
    event.preventDefault();
    drop.classList.add('over');
  });
  drop.addEventListener('dragleave', () => drop.classList.remove('over'));
  drop.addEventListener('drop', (event) => {
    event.preventDefault();
    drop.classList.remove('over');
    void busy('model-status', () => chooseFiles([...(event.dataTransfer?.files ?? [])]));
  });
  for (const button of document.querySelectorAll<HTMLButtonElement>('[data-sample]')) {
    const name = button.dataset['sample']!;
    button.addEventListener(
      'click',
      () =>
        void busy('model-status', async () => {
          const response = await fetch(SAMPLES[name]!);
          await choose(`${name}.onnx`, new Uint8Array(await response.arrayBuffer()));
        }),
    );
  }
  convertButton.addEventListener('click', () => void busy('convert-status', convertChosen));
  runButton.addEventListener('click', () => void busy('run-status', runBoth));
  writeButton.addEventListener('click', () => void busy('write-status', writeText));
  stopButton.addEventListener('click', () => (stopWriting = true));
}

connect();
await lookForGpu().catch((error: unknown) => tell('device', `No WebGPU: ${String(error)}`));
