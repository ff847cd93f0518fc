/* special.h -- shares that keep an object whatever its count. */
#ifndef PYRT_OBJECT_SPECIAL_H
#define PYRT_OBJECT_SPECIAL_H

#include "object/object_impl.h"

/* Sets PYRT_OBJECT_DEFERRED or PYRT_OBJECT_HAS_ID and adds its share; false if it was set. The caller has a reference. */
bool pyrt_keep(pyrt_object *object, uint16_t flag);

/* Takes both away again. Says whether nothing is left: then the caller has to see to the death. */
bool pyrt_unkeep(pyrt_object *object, uint16_t flag);

#endif
