/** `library`: the path of the custom-operator library, for other languages and servers. */
import { libraryPath } from '../../op/node/package-root.js';
import { EXIT, Failure } from './failure.js';

export function libraryCommand(options: { readonly json?: boolean }): void {
  try {
    const library = libraryPath();
    console.log(options.json ? JSON.stringify({ library }) : library);
  } catch (error) {
    throw new Failure((error as Error).message, EXIT.usage, { cause: error });
  }
}
