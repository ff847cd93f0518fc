# pyruntimeConfig.cmake -- find_package(pyruntime) where libpyruntime is installed, for programs without Python.
#
#   pyruntime::shared   libpyruntime.so
#   pyruntime::static   libpyruntime.a
#
# All paths are relative to this file, which lies in lib/cmake/pyruntime.

get_filename_component(pyruntime_PREFIX "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

if(NOT TARGET pyruntime::shared)
    add_library(pyruntime::shared SHARED IMPORTED)
    add_library(pyruntime::static STATIC IMPORTED)
    set_target_properties(pyruntime::shared PROPERTIES IMPORTED_LOCATION "${pyruntime_PREFIX}/lib/libpyruntime.so")
    set_target_properties(pyruntime::static PROPERTIES IMPORTED_LOCATION "${pyruntime_PREFIX}/lib/libpyruntime.a")
    set_target_properties(pyruntime::shared pyruntime::static PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${pyruntime_PREFIX}/include"
        INTERFACE_COMPILE_OPTIONS -pthread
        INTERFACE_LINK_OPTIONS -pthread)
endif()
