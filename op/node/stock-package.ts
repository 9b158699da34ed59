/** Finds the stock onnxruntime-node that the program uses, and the ONNX Runtime library inside it. */

import type { Backend } from 'onnxruntime-common';
import { readdirSync, realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, sep } from 'node:path';
import { pathToFileURL } from 'node:url';

const PACKAGE = 'onnxruntime-node';

/** One copy of onnxruntime-node. */
export interface StockPackage {
  readonly root: string;
  /** The one object through which every session of this copy is created. */
  readonly backend: Backend;
  /** Creates the process's ONNX Runtime environment as this copy would, with its log level. */
  initialize(): void;
  /** Path of the ONNX Runtime library that this copy has loaded. */
  ortLibrary(): string;
}

/**
 * All copies that the program has loaded; if there are none, the one that it would load.
 * Throws an Error when onnxruntime-node is not installed or is not laid out as expected.
 */
export function stockPackages(): StockPackage[] {
  const loaded = loadedRoots();
  return (loaded.length > 0 ? loaded : [resolveRoot()]).map(open);
}

const requireHere = createRequire(import.meta.url);

/** The cache of CommonJS modules is one for the whole thread, whoever asks. */
function loadedRoots(): string[] {
  const backend = join(PACKAGE, 'dist', 'backend.js');
  const paths = Object.keys(requireHere.cache).filter((path) => path.endsWith(sep + backend));
  return paths.map((path) => dirname(dirname(path)));
}

/** The program's own dependency comes before the one beside this package. */
function resolveRoot(): string {
  const program = process.argv[1];
  const places = [
    ...(program === undefined ? [] : [pathToFileURL(program)]),
    pathToFileURL(join(process.cwd(), 'any.js')),
    import.meta.url,
  ];
  for (const place of places) {
    try {
      return dirname(dirname(createRequire(place).resolve(PACKAGE)));
    } catch {
      continue;
    }
  }
  throw new Error(`${PACKAGE} is not installed; ort-sigmoid-attention/node needs it (1.24 or newer).`);
}

function open(root: string): StockPackage {
  let backend: Partial<Backend> | undefined;
  try {
    // Loading the package itself first keeps its own order of loading.
    requireHere(root);
    backend = (requireHere(join(root, 'dist/backend.js')) as { onnxruntimeBackend?: Backend })
      .onnxruntimeBackend;
  } catch (error) {
    throw new Error(`${PACKAGE} in ${root} does not load: ${(error as Error).message}`, { cause: error });
  }
  if (typeof backend?.createInferenceSessionHandler !== 'function') {
    throw new Error(`${PACKAGE} in ${root} is of a version that ort-sigmoid-attention does not know.`);
  }
  return {
    root,
    backend: backend as Backend,
    initialize() {
      const binding = requireHere(join(root, 'dist/binding.js')) as { initOrt?: () => void };
      binding.initOrt?.();
    },
    ortLibrary: () => findOrtLibrary(root),
  };
}

function findOrtLibrary(root: string): string {
  const binding = Object.keys(requireHere.cache).find(
    (path) => path.startsWith(realpathSync(root) + sep) && path.endsWith('onnxruntime_binding.node'),
  );
  const folder = binding && dirname(binding);
  const library =
    folder && readdirSync(folder).find((name) => /^(lib)?onnxruntime[.\d]*\.(so|dll|dylib)/.test(name));
  if (!library) throw new Error(`${PACKAGE} in ${root} has no ONNX Runtime library beside its binding.`);
  return join(folder, library);
}
