// Untested. Loads a converted model in Go through ONNX Runtime's C API: go run . MODEL LIBRARY
// Needs onnxruntime_c_api.h and libonnxruntime 1.24 or newer (CGO_CFLAGS, CGO_LDFLAGS).
// LIBRARY is what `npx sigmoid-attention library` prints.
package main

/*
#cgo LDFLAGS: -lonnxruntime
#include <stdlib.h>
#include <onnxruntime_c_api.h>

// Go cannot call function pointers: each step of the C API that is needed, as a function. NULL is success.
static const OrtApi* api() { return OrtGetApiBase()->GetApi(17); }

static OrtStatus* open_model(const char* model, const char* library, OrtEnv** env, OrtSession** session) {
  OrtSessionOptions* options = NULL;
  OrtStatus* status = api()->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "go", env);
  if (status == NULL) status = api()->CreateSessionOptions(&options);
  if (status == NULL) status = api()->RegisterCustomOpsLibrary_V2(options, library);
  if (status == NULL) status = api()->CreateSession(*env, model, options, session);
  if (options != NULL) api()->ReleaseSessionOptions(options);
  return status;
}

static const char* message(const OrtStatus* status) { return api()->GetErrorMessage(status); }
static OrtStatus* inputs(const OrtSession* session, size_t* count) { return api()->SessionGetInputCount(session, count); }
static void release(OrtEnv* env, OrtSession* session) { api()->ReleaseSession(session); api()->ReleaseEnv(env); }
*/
import "C"

import (
	"fmt"
	"log"
	"os"
	"unsafe"
)

func check(status *C.OrtStatus) {
	if status != nil {
		log.Fatal(C.GoString(C.message(status)))
	}
}

func main() {
	model, library := C.CString(os.Args[1]), C.CString(os.Args[2])
	defer C.free(unsafe.Pointer(model))
	defer C.free(unsafe.Pointer(library))

	var env *C.OrtEnv
	var session *C.OrtSession
	check(C.open_model(model, library, &env, &session))
	defer C.release(env, session)

	var count C.size_t
	check(C.inputs(session, &count))
	fmt.Println(count, "inputs")
}
