/** Model files as the command line reads and writes them: every problem becomes one sentence. */
import {
  accessSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import path from 'node:path';
import type { Model } from '../onnx/model.js';
import { externalDataPath, openModelFile, type OpenFile } from '../onnx/file.js';
import { EXIT, Failure, fileErrorText, modelFailure } from './failure.js';

/** Opens a model; throws a Failure with exit code 2. */
export function openModelOrFail(file: string): OpenFile {
  try {
    if (statSync(file).isDirectory()) {
      throw new Failure(`model ${file}: is a folder, a file is needed`, EXIT.invalidModel);
    }
    return openModelFile(file);
  } catch (error) {
    throw modelFailure(file, error);
  }
}

/** Throws a Failure with exit code 1 where the file could not be written, before any work is done. */
export function checkWritable(file: string, inputs: readonly string[], what: string): void {
  const folder = path.dirname(path.resolve(file));
  if (existsSync(file)) {
    if (statSync(file).isDirectory()) {
      throw new Failure(`${what} ${file}: is a folder, a file name is needed`, EXIT.usage);
    }
  }
  refuseSame(file, inputs, what, 'input');
  try {
    if (!statSync(folder).isDirectory()) throw Object.assign(new Error(), { code: 'ENOTDIR' });
    accessSync(folder, constants.W_OK);
  } catch (error) {
    throw new Failure(`${what} ${file}: cannot be written, ${fileErrorText(error)}`, EXIT.usage, {
      cause: error,
    });
  }
}

/** One file for two purposes: the later one would destroy the earlier. */
export function refuseSame(file: string, others: readonly string[], what: string, other: string): void {
  const place = (name: string): string => {
    const resolved = path.resolve(name);
    if (existsSync(resolved)) return realpathSync(resolved);
    const folder = path.dirname(resolved);
    return path.join(existsSync(folder) ? realpathSync(folder) : folder, path.basename(resolved));
  };
  if (others.some((name) => place(name) === place(file)))
    throw new Failure(`${what} ${file}: is the ${other} itself, another file name is needed`, EXIT.usage);
}

/** Files beside the model that hold its numbers. */
export function externalLocations(model: Model): string[] {
  const locations = new Set<string>();
  for (const tensor of model.graph.initializers.values()) {
    const location = tensor.external?.get('location');
    if (location !== undefined) locations.add(location);
  }
  return [...locations];
}

/** Bytes of the model with its external data. */
export function totalBytes(file: string, model: Model): number {
  return externalLocations(model)
    .map((location) => externalDataPath(file, location))
    .reduce((sum, external) => sum + (external === null ? 0 : statSync(external).size), model.source.size);
}

/** Copies external data beside the output; each file appears complete or not at all. */
export function copyExternalFiles(file: string, model: Model, output: string): void {
  const folder = path.dirname(path.resolve(output));
  if (path.dirname(path.resolve(file)) === folder) return;
  for (const location of externalLocations(model)) {
    const from = externalDataPath(file, location);
    // Null for what is not there or lies outside the model's folder: a model must not name files to copy at will.
    if (from === null) continue;
    const target = path.join(folder, location);
    const temporary = `${target}.${process.pid}.part`;
    try {
      mkdirSync(path.dirname(target), { recursive: true });
      copyFileSync(from, temporary);
      renameSync(temporary, target);
    } catch (error) {
      rmSync(temporary, { force: true });
      throw new Failure(`external data ${location}: cannot be copied, ${fileErrorText(error)}`, EXIT.usage, {
        cause: error,
      });
    }
  }
}
