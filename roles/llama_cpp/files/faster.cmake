# Makes the build of llama-server cheaper without touching its sources. build.sh has CMake read this file when it
# enters the project (CMAKE_PROJECT_INCLUDE); the function runs once all targets are known. A target that another
# version does not have is skipped: the worst that can happen is a slower build.
include_guard(GLOBAL) # ggml is a project of its own and would have this read again

if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # GCC collects its garbage all the time unless it may use more memory (0.7 GB per job then): a tenth of the time.
  add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:--param=ggc-min-heapsize=2000000>)
endif()

function(modelyard_faster)
  # Much of the time goes into parsing the same standard headers some 170 times: they are precompiled per target.
  # Only the standard library's are named, because they are the same in every version of llama.cpp.
  foreach(target llama llama-common mtmd server-context llama-server-impl)
    if(TARGET ${target})
      target_precompile_headers(${target} PRIVATE
        <algorithm> <atomic> <chrono> <condition_variable> <deque> <filesystem> <fstream> <functional> <iostream> <map>
        <memory> <mutex> <random> <regex> <set> <sstream> <string> <thread> <unordered_map> <unordered_set> <vector>)
      if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
        target_compile_options(${target} PRIVATE -fpch-preprocess) # else ccache cannot keep what uses such headers
      endif()
    endif()
  endforeach()
  # The arithmetic (ggml) keeps CMake's -O3. Around it -O2 and, for HTTP, JSON, chat templates and arguments, -O1 do:
  # with a model so small that only they count, tokens per second stay the same.
  foreach(target llama mtmd)
    if(TARGET ${target})
      target_compile_options(${target} PRIVATE -O2)
    endif()
  endforeach()
  foreach(target cpp-httplib llama-common server-context llama-server-impl)
    if(TARGET ${target})
      target_compile_options(${target} PRIVATE -O1)
    endif()
  endforeach()
endfunction()

cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL modelyard_faster)
