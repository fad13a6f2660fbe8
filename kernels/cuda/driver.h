/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver.h - the part of the CUDA driver's interface that is used, found at run time.
 *
 * Nothing is linked: libcuda.so.1 is opened by name (or WEFT_CUDA_DRIVER's), and every entry point is
 * looked up, so that the module builds without CUDA's headers and says which one is missing; those that
 * an older driver lacks may be. The declarations are ours; driver_check.c compares them with the vendor's
 * where those are installed.
 */
#ifndef WEFT_KERNELS_CUDA_DRIVER_H
#define WEFT_KERNELS_CUDA_DRIVER_H

#include <stddef.h>
#include <stdint.h>

typedef int cu_result; /* 0: success */
typedef int cu_device;
typedef uint64_t cu_ptr; /* an address of the device */
typedef struct cu_context_s *cu_context;
typedef struct cu_stream_s *cu_stream;
typedef struct cu_event_s *cu_event;
typedef struct cu_module_s *cu_module;
typedef struct cu_function_s *cu_function;
typedef struct cu_graph_s *cu_graph;
typedef struct cu_graph_exec_s *cu_graph_exec;
typedef uint64_t cu_memory; /* physical memory, not mapped yet */

enum { CU_OUT_OF_MEMORY = 2, CU_NOT_READY = 600, CU_NOT_SUPPORTED = 801 };

enum cu_attribute {
	CU_MULTIPROCESSORS = 16,
	CU_CACHE_BYTES = 38,
	CU_CAPABILITY_MAJOR = 75,
	CU_CAPABILITY_MINOR = 76,
	CU_SHARED_BYTES_OPTIN = 97,
	CU_VIRTUAL_MEMORY = 102,
};

enum { CU_FUNCTION_PTX_VERSION = 5, CU_FUNCTION_SHARED_BYTES = 8, CU_FUNCTION_SHARED_PART = 9 };
enum { CU_LAUNCH_OVERLAP = 6 }; /* it may begin before the launch before it has ended */
enum { CU_STREAM_ASYNC = 1 };
enum { CU_HOST_PORTABLE = 1, CU_HOST_MAPPED = 2 };
enum { CU_CAPTURE_THREAD_LOCAL = 1 };
enum { CU_EVENT_BLOCKING = 1, CU_EVENT_NO_TIMING = 2 };
enum { CU_SOURCE_IN_STREAM_ORDER = 1 };
enum { CU_COPY_BESIDE_COMPUTE = 1 };

struct cu_location {
	int type; /* 1: a device */
	int id;
};

struct cu_memory_prop {
	int type; /* 1: pinned */
	int handle_types;
	struct cu_location location;
	void *reserved0;
	struct {
		unsigned char compression, gpu_direct_rdma;
		unsigned short usage;
		unsigned char reserved[4];
	} flags;
};

struct cu_access {
	struct cu_location location;
	int flags; /* 3: read and write */
};

struct cu_launch_attribute {
	int id;
	int pad;
	union {
		char bytes[64];
		int on;
	} value;
};

struct cu_launch_config {
	unsigned grid[3], block[3], shared_bytes;
	cu_stream stream;
	struct cu_launch_attribute *attributes;
	unsigned n_attributes;
};

/* Of the copies of a batch. */
struct cu_copy_attributes {
	int source_order;
	struct cu_location source, destination; /* hints for memory that is not CUDA's */
	unsigned flags;
};

/* X(name in the table, symbol, arguments) */
#define CU_CALLS(X)                                                                                \
	X(init, cuInit, (unsigned flags))                                                          \
	X(driver_version, cuDriverGetVersion, (int *ret))                                          \
	X(error_name, cuGetErrorName, (cu_result r, const char **ret))                             \
	X(device_count, cuDeviceGetCount, (int *ret))                                              \
	X(device_get, cuDeviceGet, (cu_device * ret, int ordinal))                                 \
	X(device_name, cuDeviceGetName, (char *ret, int bytes, cu_device dev))                     \
	X(device_attribute, cuDeviceGetAttribute, (int *ret, int attribute, cu_device dev))        \
	X(context_retain, cuDevicePrimaryCtxRetain, (cu_context * ret, cu_device dev))             \
	X(context_release, cuDevicePrimaryCtxRelease_v2, (cu_device dev))                          \
	X(context_set, cuCtxSetCurrent, (cu_context ctx))                                          \
	X(memory_info, cuMemGetInfo_v2, (size_t * ret_free, size_t * ret_total))                   \
	X(mem_alloc, cuMemAlloc_v2, (cu_ptr * ret, size_t bytes))                                  \
	X(mem_free, cuMemFree_v2, (cu_ptr p))                                                      \
	X(mem_granularity, cuMemGetAllocationGranularity,                                          \
	  (size_t * ret, const struct cu_memory_prop *prop, int option))                           \
	X(mem_create, cuMemCreate,                                                                 \
	  (cu_memory * ret, size_t bytes, const struct cu_memory_prop *prop, uint64_t flags))      \
	X(mem_release, cuMemRelease, (cu_memory mem))                                              \
	X(mem_reserve, cuMemAddressReserve,                                                        \
	  (cu_ptr * ret, size_t bytes, size_t align, cu_ptr at, uint64_t flags))                   \
	X(mem_unreserve, cuMemAddressFree, (cu_ptr p, size_t bytes))                               \
	X(mem_map, cuMemMap,                                                                       \
	  (cu_ptr at, size_t bytes, size_t offset, cu_memory mem, uint64_t flags))                 \
	X(mem_unmap, cuMemUnmap, (cu_ptr at, size_t bytes))                                        \
	X(mem_access, cuMemSetAccess,                                                              \
	  (cu_ptr at, size_t bytes, const struct cu_access *access, size_t n))                     \
	X(host_alloc, cuMemHostAlloc, (void **ret, size_t bytes, unsigned flags))                  \
	X(host_free, cuMemFreeHost, (void *p))                                                     \
	X(host_address, cuMemHostGetDevicePointer_v2, (cu_ptr * ret, void *p, unsigned flags))     \
	X(copy_to, cuMemcpyHtoDAsync_v2, (cu_ptr to, const void *from, size_t bytes, cu_stream s)) \
	X(copy_from, cuMemcpyDtoHAsync_v2, (void *to, cu_ptr from, size_t bytes, cu_stream s))     \
	X(fill, cuMemsetD8Async, (cu_ptr to, unsigned char v, size_t bytes, cu_stream s))          \
	X(stream_new, cuStreamCreate, (cu_stream * ret, unsigned flags))                           \
	X(stream_free, cuStreamDestroy_v2, (cu_stream s))                                          \
	X(stream_wait, cuStreamSynchronize, (cu_stream s))                                         \
	X(stream_query, cuStreamQuery, (cu_stream s))                                              \
	X(stream_wait_for, cuStreamWaitEvent, (cu_stream s, cu_event e, unsigned flags))           \
	X(event_new, cuEventCreate, (cu_event * ret, unsigned flags))                              \
	X(event_free, cuEventDestroy_v2, (cu_event e))                                             \
	X(event_record, cuEventRecord, (cu_event e, cu_stream s))                                  \
	X(event_query, cuEventQuery, (cu_event e))                                                 \
	X(event_wait, cuEventSynchronize, (cu_event e))                                            \
	X(event_elapsed, cuEventElapsedTime, (float *ret_ms, cu_event from, cu_event to))          \
	X(module_load, cuModuleLoadData, (cu_module * ret, const void *image))                     \
	X(module_free, cuModuleUnload, (cu_module m))                                              \
	X(function_get, cuModuleGetFunction, (cu_function * ret, cu_module m, const char *name))   \
	X(function_is, cuFuncGetAttribute, (int *ret, int attribute, cu_function f))               \
	X(function_set, cuFuncSetAttribute, (cu_function f, int attribute, int value))             \
	X(launch, cuLaunchKernel,                                                                  \
	  (cu_function f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,         \
	   unsigned bz, unsigned shared, cu_stream s, void **params, void **extra))                \
	X(capture_begin, cuStreamBeginCapture_v2, (cu_stream s, int mode))                         \
	X(capture_end, cuStreamEndCapture, (cu_stream s, cu_graph * ret))                          \
	X(graph_make, cuGraphInstantiateWithFlags,                                                 \
	  (cu_graph_exec * ret, cu_graph g, unsigned long long flags))                             \
	X(graph_free, cuGraphDestroy, (cu_graph g))                                                \
	X(graph_launch, cuGraphLaunch, (cu_graph_exec g, cu_stream s))                             \
	X(graph_exec_free, cuGraphExecDestroy, (cu_graph_exec g))

/* What a driver may lack: NULL then. Copies in batches came with 12.8; 13.0 took an argument away. */
#define CU_OPTIONAL_CALLS(X)                                                                      \
	X(copy_batch, cuMemcpyBatchAsync_v2,                                                      \
	  (const cu_ptr *to, const cu_ptr *from, const size_t *bytes, size_t n,                   \
	   const struct cu_copy_attributes *attributes, const size_t *first, size_t n_attributes, \
	   cu_stream s))                                                                          \
	X(copy_batch_12, cuMemcpyBatchAsync,                                                      \
	  (const cu_ptr *to, const cu_ptr *from, const size_t *bytes, size_t n,                   \
	   const struct cu_copy_attributes *attributes, const size_t *first, size_t n_attributes, \
	   size_t *ret_failed, cu_stream s))                                                      \
	X(launch_ex, cuLaunchKernelEx,                                                            \
	  (const struct cu_launch_config *config, cu_function f, void **params, void **extra))

struct cu_driver {
	void *library; /* owner: of dlopen */
#define CU_MEMBER(name, symbol, args) cu_result(*name) args;
	CU_CALLS(CU_MEMBER)
	CU_OPTIONAL_CALLS(CU_MEMBER)
#undef CU_MEMBER
};

/* Open the driver. 0, or -errno with one line in why: -ENODEV if there is no such library. */
int cu_driver_open(struct cu_driver *d, char *why, size_t why_bytes);
void cu_driver_close(struct cu_driver *d);

#endif
