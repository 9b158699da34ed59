/**
 * Writes a model repository for Triton Inference Server: the model, its external data, the operator library and a
 * configuration that loads it. docs/triton.md shows how to serve it.
 */
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, posix } from 'node:path';
import type { DeclaredDim, ValueInfo } from '../graph/graph.js';
import { externalDataPath, openModelFile } from '../onnx/file.js';
import type { Model } from '../onnx/model.js';
import { configText, tritonType, type TensorConfig } from './config.js';

export interface TritonExport {
  /** Folder of the repository; it may exist and hold other models. */
  readonly repository: string;
  /** Name of the model in the repository; the file's name without its ending when absent. */
  readonly name?: string;
  readonly device: 'cpu' | 'cuda';
  readonly instances: number;
  /** Largest batch that the server may form; 0: the model's inputs are served as they are, without batching. */
  readonly maxBatchSize: number;
  /** Microseconds that a request may wait for others. */
  readonly queueDelay: number;
  /** The repository's path as the server sees it, for instance in its container. */
  readonly servedFrom: string;
  /** The operator library; with `cuda` its folder must hold the CUDA library too. */
  readonly library: string;
}

export interface Exported {
  readonly folder: string;
  readonly files: readonly string[];
}

/** Files of the CUDA build that the operator library opens when a session asks for CUDA. */
const CUDA_LIBRARY = 'libort_sigmoid_attention_cuda.so';

/**
 * Exports a model file. What was there under its name is replaced as a whole, once everything has been written.
 * @throws Error with one sentence when the model cannot be served as asked; ModelFormatError when it cannot be read
 */
export function exportTriton(modelPath: string, options: TritonExport): Exported {
  const name = options.name ?? basename(modelPath).replace(/\.onnx$/i, '');
  checkOptions(name, options);
  const { model, close } = openModelFile(modelPath);
  try {
    const libraries = librariesOf(options);
    const config = configText({
      name,
      maxBatchSize: options.maxBatchSize,
      inputs: inputsOf(model).map((info) => tensorOf(info, 'input', options.maxBatchSize)),
      outputs: model.graph.outputs.map((info) => tensorOf(info, 'output', options.maxBatchSize)),
      device: options.device,
      instances: options.instances,
      queueDelay: options.maxBatchSize > 1 ? options.queueDelay : null,
      libraryPath: posix.join(options.servedFrom, name, basename(options.library)),
    });
    mkdirSync(options.repository, { recursive: true });
    const draft = mkdtempSync(join(options.repository, `.${name}-`));
    try {
      const files = ['config.pbtxt'];
      writeFileSync(join(draft, 'config.pbtxt'), config);
      const copy = (from: string, to: string): void => {
        mkdirSync(dirname(join(draft, to)), { recursive: true });
        copyFileSync(from, join(draft, to));
        files.push(to);
      };
      copy(modelPath, '1/model.onnx');
      for (const location of externalLocations(model)) {
        const from = externalDataPath(modelPath, location);
        if (from === null)
          throw new Error(`external data '${location}' is not in the folder of ${modelPath}`);
        copy(from, `1/${location}`);
      }
      for (const library of libraries) copy(library, basename(library));
      const folder = join(options.repository, name);
      rmSync(folder, { recursive: true, force: true });
      renameSync(draft, folder);
      return { folder, files };
    } catch (error) {
      rmSync(draft, { recursive: true, force: true });
      throw error;
    }
  } finally {
    close();
  }
}

function checkOptions(name: string, { instances, maxBatchSize, queueDelay, servedFrom }: TritonExport): void {
  if (!/^[A-Za-z0-9][\w.-]*$/.test(name)) {
    throw new Error(
      `model name '${name}' is not allowed: letters, digits, '_', '-' and '.', a letter or digit first`,
    );
  }
  const whole = (what: string, value: number, least: number): void => {
    if (!Number.isInteger(value) || value < least || value > 2 ** 31 - 1) {
      throw new Error(`${what} is ${value}, must be a whole number from ${least} to 2147483647`);
    }
  };
  whole('instances', instances, 1);
  whole('maximum batch size', maxBatchSize, 0);
  whole('queue delay', queueDelay, 0);
  if (!servedFrom.startsWith('/')) {
    throw new Error(`the repository's path on the server is '${servedFrom}', must be absolute`);
  }
}

function librariesOf({ library, device }: TritonExport): string[] {
  if (!library.endsWith('.so')) {
    throw new Error(
      `Triton's servers run Linux, the operator library here is '${basename(library)}'; export on Linux`,
    );
  }
  if (device === 'cpu') return [library];
  const cuda = join(dirname(library), CUDA_LIBRARY);
  if (!existsSync(cuda)) {
    throw new Error(
      `device cuda needs ${CUDA_LIBRARY} beside ${library}; build it with 'node scripts/setup.mjs cuda'`,
    );
  }
  return [library, cuda];
}

/** Inputs that a request must bring: initializers may be declared as inputs too. */
function inputsOf({ graph }: Model): ValueInfo[] {
  return graph.inputs.filter(({ name }) => !graph.initializers.has(name));
}

function externalLocations({ graph }: Model): Set<string> {
  const found = [...graph.initializers.values()].map((tensor) => tensor.external?.get('location'));
  return new Set(found.filter((location) => location !== undefined));
}

const sizeOf = (dim: DeclaredDim): number => (typeof dim === 'number' && dim >= 0 ? dim : -1);

function tensorOf(info: ValueInfo, kind: 'input' | 'output', maxBatchSize: number): TensorConfig {
  const { name, dims } = info;
  const dataType = tritonType(info.dataType);
  if (dataType === undefined) throw new Error(`${kind} '${name}' has a type that Triton does not know`);
  if (dims === null)
    throw new Error(`${kind} '${name}' has no declared shape, Triton needs its number of dimensions`);
  const sizes = dims.map(sizeOf);
  if (maxBatchSize > 0) {
    if (sizes[0] !== -1) {
      const found = dims.length === 0 ? 'no dimensions' : `a first dimension of ${sizes[0]}`;
      throw new Error(
        `${kind} '${name}' has ${found}: batches need one that is open; export with a batch size of 0`,
      );
    }
    sizes.shift();
  }
  return sizes.length > 0 ? { name, dataType, dims: sizes } : { name, dataType, dims: [1], reshape: [] };
}
