/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver_check.c - our declarations of the driver's interface against the vendor's. Compiled, never
 * linked, and only where cuda.h is installed.
 */
#include <cuda.h>
#include <cublasLt.h>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/driver.h"

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #ours)

SAME(CU_OUT_OF_MEMORY, CUDA_ERROR_OUT_OF_MEMORY);
SAME(CU_NOT_READY, CUDA_ERROR_NOT_READY);
SAME(CU_NOT_SUPPORTED, CUDA_ERROR_NOT_SUPPORTED);
SAME(CU_MULTIPROCESSORS, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
SAME(CU_CACHE_BYTES, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
SAME(CU_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME(CU_CAPABILITY_MINOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
SAME(CU_SHARED_BYTES_OPTIN, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
SAME(CU_VIRTUAL_MEMORY, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED);
SAME(CU_FUNCTION_SHARED_BYTES, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
SAME(CU_FUNCTION_SHARED_PART, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT);
SAME(CU_FUNCTION_PTX_VERSION, CU_FUNC_ATTRIBUTE_PTX_VERSION);
SAME(CU_LAUNCH_OVERLAP, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);
SAME(CU_STREAM_ASYNC, CU_STREAM_NON_BLOCKING);
SAME(CU_HOST_PORTABLE, CU_MEMHOSTALLOC_PORTABLE);
SAME(CU_HOST_MAPPED, CU_MEMHOSTALLOC_DEVICEMAP);
SAME(CU_CAPTURE_THREAD_LOCAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
SAME(CU_EVENT_NO_TIMING, CU_EVENT_DISABLE_TIMING);
SAME(CU_EVENT_BLOCKING, CU_EVENT_BLOCKING_SYNC);
SAME(1, CU_MEM_LOCATION_TYPE_DEVICE);
SAME(1, CU_MEM_ALLOCATION_TYPE_PINNED);
SAME(3, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
SAME(sizeof(cu_ptr), sizeof(CUdeviceptr));
SAME(sizeof(cu_memory), sizeof(CUmemGenericAllocationHandle));
SAME(sizeof(struct cu_memory_prop), sizeof(CUmemAllocationProp));
SAME(offsetof(struct cu_memory_prop, location), offsetof(CUmemAllocationProp, location));
SAME(offsetof(struct cu_memory_prop, flags), offsetof(CUmemAllocationProp, allocFlags));
SAME(sizeof(struct cu_access), sizeof(CUmemAccessDesc));
SAME(offsetof(struct cu_access, flags), offsetof(CUmemAccessDesc, flags));
SAME(sizeof(struct cu_launch_attribute), sizeof(CUlaunchAttribute));
SAME(offsetof(struct cu_launch_attribute, value), offsetof(CUlaunchAttribute, value));
SAME(sizeof(struct cu_launch_config), sizeof(CUlaunchConfig));
SAME(offsetof(struct cu_launch_config, block), offsetof(CUlaunchConfig, blockDimX));
SAME(offsetof(struct cu_launch_config, shared_bytes), offsetof(CUlaunchConfig, sharedMemBytes));
SAME(offsetof(struct cu_launch_config, stream), offsetof(CUlaunchConfig, hStream));
SAME(offsetof(struct cu_launch_config, attributes), offsetof(CUlaunchConfig, attrs));
SAME(offsetof(struct cu_launch_config, n_attributes), offsetof(CUlaunchConfig, numAttrs));

#if CUDA_VERSION >= 12080
SAME(CU_SOURCE_IN_STREAM_ORDER, CU_MEMCPY_SRC_ACCESS_ORDER_STREAM);
SAME(CU_COPY_BESIDE_COMPUTE, CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE);
SAME(sizeof(struct cu_copy_attributes), sizeof(CUmemcpyAttributes));
SAME(offsetof(struct cu_copy_attributes, source_order),
     offsetof(CUmemcpyAttributes, srcAccessOrder));
SAME(offsetof(struct cu_copy_attributes, source), offsetof(CUmemcpyAttributes, srcLocHint));
SAME(offsetof(struct cu_copy_attributes, destination), offsetof(CUmemcpyAttributes, dstLocHint));
SAME(offsetof(struct cu_copy_attributes, flags), offsetof(CUmemcpyAttributes, flags));
#endif

SAME(0, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
SAME(sizeof(cu_device), sizeof(CUdevice));
SAME(sizeof(struct cu_location), sizeof(CUmemLocation));

SAME(LT_COMPUTE_32F, CUBLAS_COMPUTE_32F);
SAME(LT_F32, CUDA_R_32F);
SAME(LT_BF16, CUDA_R_16BF);
SAME(LT_TRANSPOSED, CUBLAS_OP_T);
SAME(LT_DESC_TRANS_A, CUBLASLT_MATMUL_DESC_TRANSA);
SAME(LT_PREF_WORKSPACE, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME(LT_PREF_ALIGN_A, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
SAME(LT_PREF_ALIGN_A + 1, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
SAME(LT_PREF_ALIGN_A + 2, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
SAME(LT_PREF_ALIGN_A + 3, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
SAME(sizeof(((struct lt_heuristic *)0)->algo), sizeof(cublasLtMatmulAlgo_t));
SAME(sizeof(struct lt_heuristic), sizeof(cublasLtMatmulHeuristicResult_t));
SAME(offsetof(struct lt_heuristic, state), offsetof(cublasLtMatmulHeuristicResult_t, state));
